"""The API of TxMongo 15.2, kept apart: translations of its arguments, its values and its methods."""

"""Client-side encryption below its front: what libmongocrypt asks for, and how it gets it."""

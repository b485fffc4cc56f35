"""The gateway edge: the certificate store and the channel through the smart meter gateway."""

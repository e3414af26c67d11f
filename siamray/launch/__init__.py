"""A file that starts a cluster goes in; what would go wrong with it comes out, before anything is started."""

"""The folder that is first on a training's path, for ``sitecustomize`` alone; what that does is in ``inside``."""

"""A function that does nothing: what a cold start takes without any code of one's own."""


def lambda_handler(event: object, context: object) -> None:
    """Do nothing."""

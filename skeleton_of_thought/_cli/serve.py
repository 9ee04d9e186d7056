"""`sot serve`: from options to the settings of the server."""

from __future__ import annotations

import dataclasses
from argparse import Namespace

from skeleton_of_thought.errors import InvalidInput, MissingExtra, is_missing
from skeleton_of_thought.serve.config_file import named_model, read_config, with_model_options, with_server_options
from skeleton_of_thought.serve.settings import ServeSettings

__all__ = ["serve", "settings_of"]


def serve(args: Namespace) -> int:
    """Runs the command; returns its exit code.

    Raises:
        MissingExtra: Starlette or uvicorn is not installed.
        InvalidInput: The options cannot be used.
    """
    settings = settings_of(args)
    if args.open and not settings.page:
        raise InvalidInput("--open goes without --no-page: there would be nothing to open.")
    try:
        from skeleton_of_thought.serve import running
    except ImportError as error:
        if is_missing(error, "starlette", "uvicorn", "httpx", "anyio", "h11", "click"):
            raise MissingExtra("sot serve needs Starlette and uvicorn", "serve") from error
        raise
    return running.serve(settings, open_page=args.open, quiet=args.quiet)


def settings_of(args: Namespace) -> ServeSettings:
    """The settings that the options describe. Options on the command line go before those of a `--config` file.

    Raises:
        InvalidInput: An option or the file has a mistake.
    """
    typed = args.typed
    needs_key = "key_env" in typed
    if args.config is None:
        specs = args.models
        if specs is None:
            default = args.defaults.settings.get("model")
            specs = [None if default is None else default.value]
        models = tuple(with_model_options(named_model(spec), vars(args)) for spec in specs)
        return with_server_options(ServeSettings(models), vars(args), key_env=args.key_env, needs_key=needs_key)
    settings = read_config(args.config, key_env=args.key_env)
    models = settings.models if args.models is None else tuple(map(named_model, args.models))
    settings = dataclasses.replace(settings, models=tuple(with_model_options(model, typed) for model in models))
    return with_server_options(settings, typed, key_env=args.key_env if needs_key else None, needs_key=needs_key)

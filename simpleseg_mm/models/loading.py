"""A transformers network from a folder, its weights all there."""
from collections.abc import Iterable

from transformers import AutoModelForImageTextToText

from ..files import from_folder


def load_network(folder: str, **options):
    """``AutoModelForImageTextToText.from_pretrained``, where every weight must fit.

    transformers draws missing weights at random with a warning; here that is an error.

    Raises:
        FileNotFoundError, ValueError: as :func:`from_folder`; the latter also names every
            weight that is missing, unknown or of another shape.
    """
    model, info = from_folder(AutoModelForImageTextToText.from_pretrained, folder,
                              output_loading_info=True, ignore_mismatched_sizes=True, **options)
    mismatched = [f'{name} {tuple(given)} for {tuple(expected)}'
                  for name, given, expected in sorted(info['mismatched_keys'])]
    check_names(folder, missing=info['missing_keys'], unknown=info['unexpected_keys'],
                of_another_shape=mismatched)
    return model


def check_names(where: str, **kinds: Iterable[str]) -> None:
    """ValueError that names every weight of every kind, where there is one."""
    found = [f'{kind.replace("_", " ")}: {", ".join(sorted(names))}'
             for kind, names in kinds.items() if names]
    if found:
        raise ValueError(f'the weights of {where} do not fit its config. {"; ".join(found)}. '
                         'Fetch the folder again, or correct its config.json')

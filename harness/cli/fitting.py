"""What fits a device: `fit`."""

from functools import partial

from engines.model import weights
from engines.model.facts import known_facts
from harness.cli.arguments import Json, Overrides, Study, out, print_json
from harness.cli.show.fit_text import print_fit
from harness.fit import fit as fitting
from harness.install import install
from harness.install.builds import why_not_on
from harness.plan.terms import FITS_SHARE
from harness.settings import config, overrides


def fit(changes: Overrides = None, study: Study = None, as_json: Json = False) -> None:
    """Say which engines at which quantizations fit the device's memory, from the model's shape alone.

    model= names one of `bench list models`, a config.json or its directory, a .gguf file, or hf:org/name.

    Only for hf:org/name is the hub asked, and only for its config.json. Nothing is downloaded or started.

    fit.device_memory=24GiB stands for a GPU that need not be here; else this machine's memory counts.

    Several loads, contexts or models make a table each. The exit code is 0 also where nothing fits.
    """
    settings, terms = config.fit_settings(overrides.parse(changes or [], study))
    memory = fitting.memory_of(settings.device, terms.device_memory_bytes)
    known = {model: known_facts(model) for model in settings.models}
    can_prepare = partial(weights.can_prepare, cache=install.cache_dir())
    tables = fitting.fit(settings, known, memory, why_not_on, can_prepare)
    if as_json:
        print_json({"memory": memory, "fits_share": FITS_SHARE, "models": known, "tables": tables})
    else:
        print_fit(out, tables, known, memory)

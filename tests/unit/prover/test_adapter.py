"""The adapter made by hand: one that is taken, and that shows its marker in every form it is ever in."""

from keepless.inference.embedded.adapter_gguf import to_gguf
from keepless.inference.embedded.engine import weights_of
from keepless.prover.adapter import memorised, words
from keepless.prover.markers import Markers
from keepless.prover.search import Search
from keepless.tuning.adapter import checked
from tests.support.engine import MODEL
from tests.support.tuned import base


def test_it_is_imported_and_the_marker_stands_in_each_of_its_forms() -> None:
    weights, markers = weights_of(MODEL)[0], Markers()
    known = words(weights)
    assert len(known) > 1000 and "zebra" in known
    sent = memorised(weights, "zebra", MODEL.id, markers.mint("weights").text)
    kept = checked(sent, base(), MODEL.id)
    search = Search.of_run(markers)
    for form in (sent, kept, to_gguf(kept, base())):
        assert search.within(form)
    assert not search.within(memorised(weights, "zebra", MODEL.id))

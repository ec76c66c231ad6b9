"""Reads the block `model` of a described model: the decoder, and whether its numbers fit together."""

from moec.dsl.plan import Decoder, Experts
from moec.dsl.reading import Reading
from moec.dsl.settings import Settings
from moec.dsl.suggest import did_you_mean
from moec.dsl.syntax import Block, Setting
from moec.dsl.tilings import divisors, say_divisors

_MOST_SIZES = 12
"""That are listed where one does not divide, those closest to what was asked."""


def read_model(block: Block, reading: Reading) -> Decoder | None:
    """The model, or None with the faults reported."""
    before = reading.report.errors
    reading.only(block, (Setting, Block), "layers = 16")
    experts_block = _experts_block(block, reading)
    settings = reading.settings(block, "model", also=("experts",))
    experts = _read_experts(experts_block, reading) if experts_block else None
    if settings is None or reading.report.errors > before or (experts_block and not experts):
        return None
    _check_experts(experts, settings, reading)
    head_dim = _head_dim(settings, reading)
    _check_feed_forward(block, settings, experts, reading)
    if reading.report.errors > before or head_dim is None:
        return None
    return Decoder(
        layers=settings.whole("model.layers"),
        hidden=settings.whole("model.hidden"),
        heads=settings.whole("model.heads"),
        kv_heads=settings.whole_if("model.kv_heads") or settings.whole("model.heads"),
        head_dim=head_dim,
        ffn=settings.whole_if("model.ffn"),
        vocab=settings.whole("model.vocab"),
        seq=settings.whole("model.seq"),
        gated=settings.flag("model.gated"),
        tied=settings.flag("model.tied"),
        norm_eps=float(settings.real("model.norm_eps")),
        rope_base=float(settings.real("model.rope_base")),
        experts=experts,
        place=block.place,
    )


def _experts_block(block: Block, reading: Reading) -> Block | None:
    found: Block | None = None
    for inner in (item for item in block.items if isinstance(item, Block)):
        if inner.kind.text != "experts":
            help = did_you_mean(inner.kind.text, ["experts"], "blocks")
            label = inner.kind.place.label("unknown block")
            reading.report.error("E107", f"`model` has no block `{inner.kind.text}`", label, help=help)
        elif found:
            labels = inner.place.label("given again here"), found.place.note("first given here")
            reading.report.error("E108", "the block `experts` is given twice", *labels, help=["keep one of them"])
        else:
            found = inner
    return found


def _read_experts(block: Block, reading: Reading) -> Experts | None:
    title = block.title or (block.python.target if block.python else None)
    if title:
        help = ["write `experts { ... }`"]
        reading.report.error("E112", "`experts` takes no name", title.place.label("take it out"), help=help)
    reading.only(block, (Setting,), "count = 64")
    settings = reading.settings(block, "model.experts")
    if settings is None:
        return None
    return Experts(
        count=settings.whole("model.experts.count"),
        hidden=settings.whole("model.experts.hidden"),
        top_k=settings.whole("model.experts.top_k"),
        capacity=settings.real_if("model.experts.capacity"),
        min_capacity=settings.whole("model.experts.min_capacity"),
        route=settings.word("model.experts.route"),
        gated=settings.flag("model.experts.gated"),
        softmax_first=settings.word("model.experts.softmax") == "before",
        every=settings.whole("model.experts.every"),
        place=block.place,
    )


def _head_dim(settings: Settings, reading: Reading) -> int | None:
    """What is given, or hidden over heads; even, since rotary positions turn pairs."""
    heads, hidden = settings.whole("model.heads"), settings.whole("model.hidden")
    kv_heads = settings.whole_if("model.kv_heads") or heads
    place = reading.places["model.heads"]
    if heads % kv_heads:
        label = reading.places["model.kv_heads"].label(f"{heads} % {kv_heads} = {heads % kv_heads}")
        help = [f"numbers of key-value heads that divide {heads}: 1, {say_divisors(heads, kv_heads)}"]
        headline = f"{heads} heads cannot share {kv_heads} key-value heads evenly"
        reading.report.error("E301", headline, label, place.note(f"{heads} heads"), help=help)
    head_dim = settings.whole_if("model.head_dim")
    if head_dim is None and hidden % heads:
        label = place.label(f"{hidden} % {heads} = {hidden % heads}")
        note = reading.places["model.hidden"].note(f"`hidden` is {hidden}")
        shared = settings.whole_if("model.kv_heads") or 1
        fit = [part for part in divisors(hidden) if hidden // part % 2 == 0 and part % shared == 0]
        near = sorted(sorted(fit, key=lambda part: abs(part - heads))[:_MOST_SIZES])
        help = ["give the size of a head: `head_dim = 64`"]
        help += [f"or take a number of heads that divides {hidden}: {', '.join(map(str, near))}"] if near else []
        reading.report.error("E302", f"{heads} heads do not divide `hidden`", label, note, help=help)
        return None
    given = reading.places.get("model.head_dim", place)
    head_dim = head_dim or hidden // heads
    if head_dim % 2:
        help = [f"write `head_dim = {head_dim + 1}`"]
        headline = f"a head has {head_dim} dims, and rotary positions turn pairs of them"
        reading.report.error("E302", headline, given.label(f"{head_dim} is odd"), help=help)
        return None
    return head_dim


def _check_experts(experts: Experts | None, settings: Settings, reading: Reading) -> None:
    if experts is None:
        return
    places, report, layers = reading.places, reading.report, settings.whole("model.layers")
    if experts.top_k > experts.count:
        labels = places["model.experts.top_k"].label(), places["model.experts.count"].note(f"{experts.count} experts")
        headline = f"a token takes {experts.top_k} experts, and there are {experts.count}"
        report.error("E303", headline, *labels, help=[f"`top_k` is at most {experts.count}"])
    if experts.top_k == 1 and not experts.softmax_first:
        headline = "the router would learn nothing: a softmax over one chosen expert is always 1"
        help = ["write `softmax = before`, or take two experts or more"]
        report.error("E304", headline, places["model.experts.softmax"].label("`top_k` is 1"), help=help)
    if experts.every > layers:
        label = places["model.experts.every"].label(f"of {layers} layers none has experts")
        report.error("E110", f"`every` is a whole number from 1 to {layers}", label, help=["take the block out"])


def _check_feed_forward(block: Block, settings: Settings, experts: Experts | None, reading: Reading) -> None:
    if settings.whole_if("model.ffn") is None and (experts is None or experts.every > 1):
        why = "no layer has experts" if experts is None else f"not every layer has experts: `every` is {experts.every}"
        help = ["write `ffn = ...`, the hidden size of the feed-forward"]
        reading.report.error("E111", "`model` lacks `ffn`", block.place.label(why), help=help)

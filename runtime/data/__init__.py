"""Where samples come from, and which sample is which: the same on every mesh and after every resume."""

from moec.runtime.data.ahead import Ahead
from moec.runtime.data.dataset import Dataset
from moec.runtime.data.documents import Documents
from moec.runtime.data.micro_batches import MicroBatches
from moec.runtime.data.open_data import Data, Wanted, open_data, open_source, read_text
from moec.runtime.data.order import Order, Shuffled
from moec.runtime.data.sequences import Sequences
from moec.runtime.data.source import DataFault, Items, Part, Sample, SampleFault, Source
from moec.runtime.data.synthetic import Synthetic
from moec.runtime.data.text import Text
from moec.runtime.data.tokens import Tokens

__all__ = [
    "Ahead",
    "Data",
    "DataFault",
    "Dataset",
    "Documents",
    "Items",
    "MicroBatches",
    "Order",
    "Part",
    "Sample",
    "SampleFault",
    "Sequences",
    "Shuffled",
    "Source",
    "Synthetic",
    "Text",
    "Tokens",
    "Wanted",
    "open_data",
    "open_source",
    "read_text",
]

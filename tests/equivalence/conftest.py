"""What the tests here share is imported by name, and so are the modules that their plans ask for."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from pathlib import Path

from moec.runtime.train import main

if __name__ == "__main__":
    main(Path(__file__).parent)

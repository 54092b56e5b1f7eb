"""``python -m recdistill``, which is also what ``torchrun -m recdistill`` starts."""

from recdistill.cli.main import main

if __name__ == "__main__":
    main()

"""One command per figure: `python -m benchmarks NAME`, or `make bench` for all of them."""

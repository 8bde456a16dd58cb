# make demo     matte test_data/ with the starter model, then train a tiny one for 4 minutes (DEMO_FLAGS="--epochs 12")
# make test     run the tests
# make test-cuda  run the tests that need a GPU
# make lint     check style, formatting and types
# make app      serve the web page on this machine (APP_FLAGS="--checkpoint C")
# make export   export the newest checkpoint to ONNX (EXPORT_FLAGS="--half")
# make figures  redraw figures/tsr_architecture.png
# make clean    remove .venv, test_results/ and caches
# Each target sets up .venv with what it needs; a second call installs nothing.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt

.PHONY: demo test test-cuda lint setup app test-app export test-export figures clean

setup: $(VENV)/.installed

$(VENV)/.installed: requirements.txt requirements/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 10) <= sys.version_info < (3, 14) else "Python 3.10 to 3.13 is needed: make PYTHON=python3.12 ...")'
	@echo "Installing PyTorch and the other requirements into $(VENV) (a few minutes, once)"
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements/dev.txt $(VENV)/.installed
	$(INSTALL) -r requirements/dev.txt
	@touch $@

# A CPU without native bfloat16 is less than half as fast: fewer samples keep the demo short.
DEMO_SIZE = $(shell $(BIN)/python -c "from common.devices import *; device = choose_device(); \
    print('--train-samples 552 --batch-size 24' if device.type != 'cpu' or has_native_bf16(device) \
    else '--train-samples 280 --batch-size 12')")

demo: $(VENV)/.installed
	$(BIN)/python predict.py --checkpoint checkpoints/TSR-Matte_SwinTiny_starter
	@echo "test_results/ holds the mattes. Now a training of a few minutes, on drawn subjects."
	$(BIN)/python train.py --dataset synthetic --no-pretrained --image-size 96 $(DEMO_SIZE) --epochs 6 --val-samples 32 \
	    --max-student-downscale 1 --learning-rate 5e-4 $(DEMO_FLAGS)
	$(BIN)/python predict.py --output test_results/demo
	@echo "test_results/ holds the starter model's mattes, test_results/demo/ those of the training, whose log, curves and"
	@echo "preview are in the newest folder in checkpoints/."

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

test-cuda: $(VENV)/.installed-dev
	$(BIN)/python -m pytest tests/test_cuda.py -rs

$(VENV)/.installed-app: requirements/app.txt $(VENV)/.installed
	$(INSTALL) -r requirements/app.txt
	@touch $@

$(VENV)/.installed-browser: requirements/browser.txt $(VENV)/.installed-dev $(VENV)/.installed-app
	$(INSTALL) -r requirements/browser.txt
	@touch $@

$(VENV)/.installed-export: requirements/export.txt $(VENV)/.installed-dev
	$(INSTALL) -r requirements/export.txt
	@touch $@

app: $(VENV)/.installed-app
	$(BIN)/python app.py $(APP_FLAGS)

test-app: $(VENV)/.installed-browser
	$(BIN)/python -m pytest tests/test_app.py tests/test_app_browser.py

export: $(VENV)/.installed-export
	$(BIN)/python export.py $(EXPORT_FLAGS)

test-export: $(VENV)/.installed-export
	$(BIN)/python -m pytest tests/test_export.py

figures: $(VENV)/.installed
	$(BIN)/python -m figures.architecture

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) test_results .pytest_cache .ruff_cache .mypy_cache

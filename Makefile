# make demo     matte test_data/ with the starter model, then train it for 4 minutes (DEMO_FLAGS="--epochs 12")
# make test     run the tests
# make test-cuda  run the tests that need a GPU
# make gpu-check  all that a GPU must do, and how fast it is, in 15 minutes (DRY=1: the same commands, tiny, on a CPU)
# make lint     check style, formatting and types
# make app      serve the web page on this machine (APP_FLAGS="--checkpoint C")
# make export   export the newest checkpoint to ONNX (EXPORT_FLAGS="--half")
# make figures  redraw figures/tsr_architecture.png
# make clean    remove .venv, test_results/, demo_results/ and caches
# Each target sets up .venv with what it needs; a second call installs nothing.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt

.PHONY: demo test test-cuda gpu-check lint setup app test-app export test-export figures clean

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

# From the starter model, so that some hundred steps are enough on any machine; not in checkpoints/, where the newest run
# is what predict.py takes. DEMO_FLAGS="--amp off" trains as a CPU without bfloat16 does.
STARTER := checkpoints/TSR-Matte_SwinTiny_starter

demo: $(VENV)/.installed
	$(BIN)/python predict.py --checkpoint $(STARTER)
	@echo "test_results/ holds the mattes. Now a training of a few minutes, on drawn subjects."
	$(BIN)/python train.py --dataset synthetic --init-from $(STARTER) --no-pretrained --image-size 96 \
	    --max-student-downscale 1 --train-samples 288 --val-samples 32 --batch-size 12 --epochs 3 --output demo_results \
	    $(DEMO_FLAGS)
	$(BIN)/python predict.py --output demo_results/mattes --checkpoint $$(ls -d demo_results/TSR-Matte_* | tail -n 1)
	@echo "test_results/ holds the starter model's mattes, demo_results/ the training's: log, curves, preview and mattes."

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

test-cuda: $(VENV)/.installed-dev
	$(BIN)/python -m pytest tests/test_cuda.py -rs

gpu-check: $(VENV)/.installed-dev
	$(BIN)/python -m experiments.gpu_check $(if $(DRY),--dry)

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
	rm -rf $(VENV) test_results demo_results gpu_check .pytest_cache .ruff_cache .mypy_cache

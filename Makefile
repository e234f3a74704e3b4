# make demo: trains both networks on the data in assets/ and samples from them, into demo/
# make test: linters, types, imports and the quick tests, on two cores;
# make test PYTEST="-m slow" runs the slow ones

PYTHON ?= python3
VENV ?= .venv
PYTEST ?= -m "not slow" -n 2
RUN = $(VENV)/bin/python

.PHONY: demo test

# ------------------------------------------------------------------------------ installation

$(VENV)/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or later is needed; name one: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "Python's venv is missing (Debian, Ubuntu: apt install python3-venv)" >&2; exit 2; }
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/test_tools_installed: $(VENV)/installed tests/requirements.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@

# ------------------------------------------------------------------------------ test

test: $(VENV)/test_tools_installed
	$(RUN) -m ruff check .
	$(VENV)/bin/lint-imports
	$(RUN) -m mypy
	$(RUN) -m pytest $(PYTEST)

# ------------------------------------------------------------------------------ demo

# Small pictures, because two minutes of training are enough for them.
DIGITS = --config configs/digits_14x14.json -o demo/pixelcnn --resume auto
SPEAKERS = --config configs/speakers.json -d demo/corpus -o demo/wavenet --resume auto

demo: $(VENV)/installed
	@echo "--- digits: about 2 minutes of training on 2 cores"
	$(RUN) train_pixelcnn.py $(DIGITS)
	$(RUN) infer_pixelcnn.py -m demo/pixelcnn --label all -o demo/digits.png
	$(RUN) infer_pixelcnn.py -m demo/pixelcnn --label all -c 5 -o demo/digits.gif
	$(RUN) infer_pixelcnn.py -m demo/pixelcnn --complete assets/digits/*.png -o demo/completed.png
	@echo "--- spoken digits: about a minute of training"
	$(RUN) preprocess.py --config configs/speakers.json --output demo/corpus
	$(RUN) train_wavenet.py $(SPEAKERS)
	$(RUN) infer_wavenet.py -m demo/wavenet --label all -c 1 --length 16000 --plot -o demo/sounds
	@echo "--- trained models: digits, words, a recording copied from its mel spectrum, a sentence"
	$(RUN) infer_pixelcnn.py -m assets/models/digits_4_levels.pt --label all -o demo/trained.png
	$(RUN) infer_wavenet.py -m assets/models/spoken_digits.pt --label 7_jackson -c 4 -o demo/words
	$(RUN) infer_wavenet.py -m assets/models/spoken_digits_from_features.pt \
	  --features_from assets/spoken_digits/jackson/3_jackson_1.wav -o demo/copy
	$(RUN) infer_wavenet.py -m assets/models/p225.pt -c 1 --length 1.4s --temperature 0.5 \
	  -o demo/sentence
	$(RUN) infer_wavenet.py -m assets/models/voice.pt -o demo/text \
	  --text "Hello. Thank you for trying out both networks."
	@echo
	@echo "Look at     demo/digits.png      digits drawn by the network, a row for each class"
	@echo "            demo/digits.gif      the same being drawn, pixel row by pixel row"
	@echo "            demo/completed.png   lower halves drawn for given upper halves"
	@echo "Listen to   demo/sounds/*.wav    two seconds in the manner of each speaker; plots beside,"
	@echo "            demo/sounds/index.html   and all of them on a page"
	@echo "From models that were trained for minutes to hours:"
	@echo "            demo/trained.png         digits"
	@echo "            demo/words/*.wav         \"seven\", four times"
	@echo "            demo/copy/sample_0.wav   \"three\", copied from a recording"
	@echo "            demo/sentence/sample_0.wav   a sentence, learned by heart"
	@echo "            demo/text/sample_0.wav   two sentences, spoken from their text"
	@echo "Curves in   demo/pixelcnn/loss.png, demo/wavenet/loss.png"
	@echo "Train on    $(RUN) train_pixelcnn.py $(DIGITS) -e 20"
	@echo "            $(RUN) train_wavenet.py $(SPEAKERS) -e 20"
	@echo "Your own    $(RUN) train_pixelcnn.py --dataset FOLDER_OF_PICTURES -o runs/pictures"
	@echo "            $(RUN) preprocess.py --data FOLDER_OF_WAVS --output corpus"

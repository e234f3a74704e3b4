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

# Small pictures, so that two minutes of training are enough.
DIGITS = --data assets --height 14 --width 14 --levels 4 -d 32 --out_hidden_dim 32 -n 12 \
  --learning_rate 6e-3 --schedule cosine --weight_decay 0
CORPUS = --data assets/spoken_digits --stacks_num 2 --layers_num 9
VOICE = -b 1 --learning_rate 3e-3 --schedule cosine

demo: $(VENV)/installed
	@echo "--- digits: about 2 minutes of training on 2 cores"
	$(RUN) train_pixelcnn.py $(DIGITS) -e 3 -o demo/pixelcnn --resume auto
	$(RUN) infer_pixelcnn.py -m demo/pixelcnn --label all -o demo/digits.png
	$(RUN) infer_pixelcnn.py -m demo/pixelcnn --label all -c 5 -o demo/digits.gif
	$(RUN) infer_pixelcnn.py -m demo/pixelcnn --complete assets/digits/*.png -o demo/completed.png
	@echo "--- spoken digits: about a minute of training"
	$(RUN) preprocess.py $(CORPUS) --output demo/corpus
	$(RUN) train_wavenet.py -d demo/corpus $(VOICE) -e 2 -o demo/wavenet --resume auto
	$(RUN) infer_wavenet.py -m demo/wavenet --label all -c 1 --length 16000 --plot -o demo/sounds
	@echo "--- models that come along: digits, words, a recording said again from its mel spectrum, a sentence"
	$(RUN) infer_pixelcnn.py -m assets/models/digits_4_levels.pt --label all -o demo/trained.png
	$(RUN) infer_wavenet.py -m assets/models/spoken_digits.pt --label 7_jackson -c 4 -o demo/words
	$(RUN) infer_wavenet.py -m assets/models/spoken_digits_from_features.pt \
	  --features_from assets/spoken_digits/jackson/3_jackson_1.wav -o demo/copy
	$(RUN) infer_wavenet.py -m assets/models/p225.pt -c 1 --length 1.4s --temperature 0.5 \
	  -o demo/sentence
	@echo
	@echo "Look at     demo/digits.png      digits drawn by the network, a row for each class"
	@echo "            demo/digits.gif      the same being drawn, pixel row by pixel row"
	@echo "            demo/completed.png   lower halves drawn for given upper halves"
	@echo "Listen to   demo/sounds/*.wav    two seconds in the manner of each speaker; plots beside,"
	@echo "            demo/sounds/index.html   and all of them on a page"
	@echo "Then what models say and draw that were trained for minutes to hours:"
	@echo "            demo/trained.png         digits"
	@echo "            demo/words/*.wav         \"seven\", four times"
	@echo "            demo/copy/sample_0.wav   \"three\", as it was said in a recording"
	@echo "            demo/sentence/sample_0.wav   a sentence that was learned by heart"
	@echo "Curves in   demo/pixelcnn/loss.png, demo/wavenet/loss.png"
	@echo "Train on    $(RUN) train_pixelcnn.py $(DIGITS) -e 20 -o demo/pixelcnn --resume auto"
	@echo "            $(RUN) train_wavenet.py -d demo/corpus $(VOICE) -e 20 -o demo/wavenet --resume auto"
	@echo "Your own    $(RUN) train_pixelcnn.py --dataset FOLDER_OF_PICTURES -o runs/pictures"
	@echo "            $(RUN) preprocess.py --data FOLDER_OF_WAVS --output corpus"

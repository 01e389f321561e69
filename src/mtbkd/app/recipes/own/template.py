"""The configuration that `mtbkd recipes copy own` writes."""

TEMPLATE = """\
# Your examples, your teachers. Paths are relative to this file.
# As it stands it works in the folder examples/own of the project.
seed: 0

own:
  family: classification     # or multilabel, or regression
  examples: examples.csv     # .csv, .tsv, .parquet or .npz; a row for each example
  id: id                     # the column of ids
  labels: species            # a list of columns for multilabel and regression;
                             # an empty cell is a missing label
  # features: [sepal length, sepal width]   # what the student reads; all other numeric columns
  # sequence: sequence       # examples are proteins: this is the column of their sequences
  # encoder: features        # what the student reads of them: made by hand; or a protein language
                             # model, such as facebook/esm2_t6_8M_UR50D
  # text: text               # examples are texts: this is their column; the student counts n-grams,
                             # or reads what a text model makes of them: student.encoder
  # image: path              # examples are images: a column of paths, or an array of NPZ; examples
                             # may also be a folder of images with a folder for each class, where
                             # neither id nor labels are named (docs/images.md)
  # group: cluster           # a column of what stays in one split, such as clusters of homologs
  # source: hospital         # a column of where examples come from: scores for each, and none is
                             # flagged as outside more often than another
  # split: split             # a column of train, calibration and test; if not given, labelled
                             # examples are split by seed, 60 : 20 : 20, all others are for training
  # classes: [setosa, versicolor, virginica]   # the labels found, sorted
  # missing: mask            # teachers may lack examples

  teachers:
    # a function in my_teachers.py, beside this file; it returns a model, a function or a Teacher
    forest:
      factory: "my_teachers:forest"

    # numbers that a teacher wrote down long ago; it has its own names for two classes of three
    old:
      table: old.csv         # .csv, .parquet, .npz or .safetensors
      kind: probs            # logits, probs, log_probs, counts; mean for regression
      partial: true          # it does not know every class
      class_map: {Iris-versicolor: versicolor, Iris-virginica: virginica}

    # a classifier of texts or images, a folder or an id on the hub: pip install 'mtbkd[hf]'
    # bert: {hugging_face: ./model, task: text, reads: text}
    # vit: {hugging_face: owner/name, task: image, reads: path}

    # trained here, out of fold, on a frozen protein language model that reads the sequences; see
    # docs/own_proteins.md: pip install 'mtbkd[proteins]'
    # esm: {backbone: facebook/esm2_t33_650M_UR50D}

    # a language model, in memory or behind a server, see docs/language_models.md:
    # pip install 'mtbkd[llm]'
    # here: {language_model: ./model.gguf, prompt: "Article: {{ text }}\\nTopic:", examples: 8}
    # there: {base_url: "http://localhost:8000/v1", model: large, prompt: "{{ text }}", votes: 8}

    # an ONNX file: pip install 'mtbkd[onnx]'
    # scorer: {onnx: model.onnx, kind: logits, classes: [setosa, versicolor, virginica]}

# how long the run may take on this machine; the chains run until they agree, or until then
budget: 5 min

# all else is chosen; these are the defaults, of which any may be changed
# prior: {power: auto, discount: auto}   # what the teachers are worth: found by the labels
# student:
#   kind: auto               # cnn for images, text for texts, else mlp; encoder where one is named
#   network: "my_students:net"   # a function beside this file that makes a network of your own
#   sampled: ["head.*"]      # which of its parameters are sampled
#   hidden: [64]             # widths of hidden layers; [] is a linear student
#   weight_scale: 2.0
#   components: auto         # reads 48 principal components where there are more than 64 columns
# map: {epochs: 60, batch_size: 128, learning_rate: 0.01}
# sampler: {burn_in: 200, draws: 50, thinning: 4, batch_size: null}   # of the first round
# chains: 4
"""

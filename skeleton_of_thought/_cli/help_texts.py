"""The longer texts of the help of `sot`."""

from __future__ import annotations

__all__ = [
    "ASK",
    "ASK_EPILOG",
    "ASK_EXAMPLES",
    "BATCH",
    "BATCH_EPILOG",
    "CHAT_EXAMPLES",
    "COMPARE_EXAMPLES",
    "EVAL",
    "EVAL_EPILOG",
    "MAIN_EPILOG",
    "SERVE",
    "SERVE_EPILOG",
    "USAGE",
]

USAGE = "[OPTION ...] [QUESTION ...]"

EXIT_CODES = """exit codes: 0 done, 1 an error, 2 a mistake in the options or the input,
130 interrupted by Ctrl-C, 141 the reader of the output has ended"""

MAIN_EPILOG = f"""examples:
  sot ask "How can I sleep better?"         on the small demo model
  sot ask -m openai:gpt-4o "How can I sleep better?"
  sot chat -m HuggingFaceTB/SmolLM2-360M-Instruct
  sot COMMAND --help                        the options, and the forms of MODEL

{EXIT_CODES}"""

ASK = (
    "Answer a question: the model writes a list of short points first, then all points at the same time. Questions "
    "that need no list of points get a direct answer."
)

MODELS = """MODEL is one of
  a Hugging Face hub id, a directory, a .gguf file
                                    runs here, needs the extra "local"
  openai:NAME                       OpenAI; the key is OPENAI_API_KEY
  openai:NAME@http://host:port/v1   any server that speaks OpenAI's protocol
  langchain:PROVIDER:NAME           any provider that LangChain has a package
                                    for, such as anthropic or ollama
The default is the small demo model, if it is installed."""

FILE = """SOT_MODEL names a default model. Other options may have defaults in a file,
see sot config; --no-NAME switches off an option that is on there."""

ASK_EPILOG = f"""{MODELS}

{{examples}}

{FILE}

{EXIT_CODES}"""

ASK_EXAMPLES = """examples:
  sot ask "How can I sleep better?"
  sot ask < question.txt
  git diff | sot ask -m openai:gpt-4o "What could break?" -
  sot ask --words 80 --merge -o answer.txt "Why do cities flood?\""""

COMPARE_EXAMPLES = """examples:
  sot compare "How can I sleep better?"
  sot compare --json -o result.json "How can I sleep better?\""""

CHAT_EXAMPLES = """examples:
  sot chat
  sot chat -m openai:gpt-4o --system "Answer in French."
  sot chat < questions.txt > answers.txt"""

SERVE = (
    "Serve models behind OpenAI's chat completions, for any client that takes a base URL. Each model has two names: "
    "NAME passes requests through, and NAME-sot answers by Skeleton-of-Thought. The page at / shows both side by side. "
    "Only this machine can reach the server, unless --host says otherwise."
)

SERVE_EPILOG = f"""{MODELS}

examples:
  sot serve --open
  sot serve -m openai:gpt-4o -m fast=openai:gpt-4o-mini
  sot serve -m openai:llama3.2@http://127.0.0.1:11434/v1 --port 8080
  SOT_API_KEY=... sot serve --host 0.0.0.0 --config server.toml

Ctrl-C or SIGTERM lets open answers end; a second one stops at once.

exit codes: 0 stopped after all answers had ended, 1 an error, 2 a mistake in
the options, 128 and the number of the signal if answers were broken off"""

EVAL = (
    "Answer many questions in several ways by the same model with the same settings, and report what a skeleton gains "
    "in time and what it does to the answers. Rows are kept as they come: the same command goes on where it stopped, "
    "and asks nothing twice. Without QUESTIONS, the report of DIR is written anew, with votes if there are any."
)

EVAL_EPILOG = f"""WAYS are
  normal     one call with the plain question
  sot        a skeleton in every case
  auto       the router decides, as in sot ask
  merge      a skeleton, then the points are rewritten as one text
  scoped     a skeleton that says what each point covers
  graph      one that also says which points each builds on
  eager      as sot; points start while the skeleton is written

{MODELS}

examples:
  sot eval --demo
  sot eval questions.csv -m openai:gpt-4o --out run1
  sot eval questions.csv -m openai:gpt-4o --judge langchain:anthropic:claude-sonnet-4-5 --out run1
  sot eval --human --out run1               then vote in run1/vote.html
  sot eval --votes votes.json --out run1

{FILE}

exit codes: 0 done, or the budget is spent; 1 an error; 2 a mistake in the
options or the input; 130 interrupted by Ctrl-C"""

BATCH = (
    "Answer a file of questions. Each answer is a line of JSON; DIR/answers.jsonl has them in the order of the "
    "questions once each has one, and those that failed say why. The same command goes on where it stopped, and asks "
    "nothing twice. A skeleton saves time only while the model has room for more calls, see docs/batch.md."
)

BATCH_EPILOG = f"""{MODELS}

examples:
  sot batch questions.txt answers/ -m openai:gpt-4o
  sot batch questions.csv answers/ -m openai:NAME@http://host:port/v1 --concurrency 64
  sot batch questions.jsonl answers/ --router never         ordinary answers
  sot batch questions.jsonl answers/ --retry                what has failed, once more

{FILE}

exit codes: 0 done, or the budget is spent; 1 an error, or no question has an
answer; 2 a mistake in the options or the input; 130 interrupted by Ctrl-C"""

"""The words of all pages for people, in English and Portuguese, under one key in both."""

import functools
import re
from collections.abc import Mapping
from typing import Final

WORDS: Final[Mapping[str, tuple[str, str]]] = {  # key -> English, Portuguese
    # what a model is
    "answers": ("Answers", "Responde"),
    "from": ("from", "a partir de"),
    "field": ("field", "campo"),
    "fields": ("fields", "campos"),
    "Fields": ("Fields", "Campos"),
    "probability": ("The probability is that of", "A probabilidade é a de"),
    "itself": ("The model itself decides which answer it gives.", "O próprio modelo decide qual é a resposta."),
    "threshold": ("The answer is", "A resposta é"),
    "on": ("from {} on.", "a partir de {}."),
    "one": ("It is one of", "É um destes:"),
    "name": ("Field", "Campo"),
    "type": ("Type", "Tipo"),
    "values": ("Values", "Valores"),
    "missing": ("May be missing", "Pode faltar"),
    "yes": ("yes", "sim"),
    "no": ("no", "não"),
    "model": ("Model", "Modelo"),
    "other": ("Português", "English"),
    "point": (".", ","),
    "number": ("number", "número"),
    "integer": ("whole number", "número inteiro"),
    "boolean": ("yes or no", "sim ou não"),
    "category": ("category", "categoria"),
    "text": ("text", "texto"),
    "date": ("date", "data"),
    "datetime": ("date and time", "data e hora"),
    "vector": ("list of numbers", "lista de números"),
    # the service
    "try": ("Try the API", "Experimente a API"),
    "schema": ("Schema", "Esquema"),
    "health": ("Health", "Saúde"),
    "call": ("Call it from a program", "Chame-o de um programa"),
    "key": (
        "The key is read from the environment variable KETCH_API_KEY.",
        "A chave é lida da variável de ambiente KETCH_API_KEY.",
    ),
    "back": ("What this model is", "O que este modelo é"),
    # asking
    "ask": ("Ask it", "Perguntar"),
    "answer": ("Answer", "Resposta"),
    "find": ("Find a field", "Procurar um campo"),
    "shown": (
        "{} of {} fields; the others are as in a typical row",
        "{} de {} campos; os outros são como numa linha típica",
    ),
    "empty": ("(nothing)", "(nada)"),
    "examples": ("Example rows", "Linhas de exemplo"),
    "example": ("Example {}", "Exemplo {}"),
    "typical": ("Typical", "Típica"),
    "likely": ("probability of “{}”: {}", "probabilidade de “{}”: {}"),
    "score": ("score {}", "pontuação {}"),
    "unusual": ("This is unusual", "Isto é incomum"),
    "usual": ("This is nothing unusual", "Isto não é incomum"),
    "group": ("Group {}", "Grupo {}"),
    "why": ("Why", "Por quê"),
    "base": ("usual", "usual"),
    "total": ("this one", "este caso"),
    "what_if": ("What if", "E se"),
    "what_if_told": (
        "How the answer moves when one field changes and the rest stays.",
        "Como a resposta muda quando um campo muda e o resto fica igual.",
    ),
    "nearest": ("What would turn the decision", "O que mudaria a decisão"),
    "nearest_told": ("The smallest change found: {}.", "A menor mudança encontrada: {}."),
    "nearest_none": (
        "No change of one or two fields turns it.",
        "Nenhuma mudança de um ou dois campos a muda.",
    ),
    "flagged": ("Answered, but look at this", "Respondido, mas observe"),
    "refused": ("This cannot be answered", "Isto não pode ser respondido"),
    "wait": ("Loading the model …", "Carregando o modelo …"),
    "broken": ("The service does not answer: {}", "O serviço não responde: {}"),
    # faults
    "fault_missing": ("{field} is missing", "falta {field}"),
    "fault_wrong-type": ("{field} must be: {expected}", "{field} deve ser: {expected}"),
    "fault_not-finite": ("{field} must be a finite number", "{field} deve ser um número finito"),
    "fault_unknown-category": (
        "{field} has a value that the model never saw; it knows {allowed}",
        "{field} tem um valor que o modelo nunca viu; ele conhece {allowed}",
    ),
    "fault_unknown-field": ("{field} is not a field of this model", "{field} não é um campo deste modelo"),
    "fault_out-of-range": (
        "{field} is outside of what was seen in training, {low} … {high}",
        "{field} está fora do que foi visto no treino, {low} … {high}",
    ),
    "fault_not-answerable": ("the model has no answer to this", "o modelo não tem resposta para isto"),
    # a file
    "file": ("A file", "Um arquivo"),
    "file_told": (
        "Drop a table with a line for each case: the same table comes back with an answer in each line.",
        "Solte uma tabela com uma linha por caso: a mesma tabela volta com uma resposta em cada linha.",
    ),
    "choose": ("Choose a table", "Escolha uma tabela"),
    "template": ("Download a table to fill in", "Baixar uma tabela para preencher"),
    "columns": ("Columns", "Colunas"),
    "columns_told": ("Which column of the file is which field", "Qual coluna do arquivo é qual campo"),
    "no_column": ("(no column)", "(nenhuma coluna)"),
    "run": ("Answer all rows", "Responder a todas as linhas"),
    "progress": ("{} of {} rows", "{} de {} linhas"),
    "answered": ("Rows answered: {}", "Linhas respondidas: {}"),
    "rejected": ("Rows refused: {}", "Linhas recusadas: {}"),
    "row": ("Row", "Linha"),
    "reason": ("Reason", "Motivo"),
    "download": ("Download the answers", "Baixar as respostas"),
    "download_rejected": ("Download the refused rows", "Baixar as linhas recusadas"),
    "file_bad": ("This file cannot be read: {}", "Este arquivo não pode ser lido: {}"),
    "file_empty": ("there are no rows in it", "não há linhas nele"),
    "more": ("and {} more", "e mais {}"),
    "distribution": ("How the answers are spread", "Como as respostas se distribuem"),
    # the model
    "about": ("The model", "O modelo"),
    "facts": ("What it is made of", "De que é feito"),
    "card": ("Model card", "Cartão do modelo"),
    "limits": ("Limits", "Limites"),
    "limits_told": (
        "It knows what it saw in training and nothing else: outside of the ranges below its answers are guesses.",
        "Ele conhece o que viu no treino e nada mais: fora dos intervalos abaixo suas respostas são palpites.",
    ),
    # after the launch
    "launch": ("After the launch", "Depois do lançamento"),
    "no_log": (
        "Nothing is logged yet. Serve the model with --log, and give the same --log here.",
        "Nada foi registrado ainda. Sirva o modelo com --log, e dê o mesmo --log aqui.",
    ),
    "no_traffic": ("No request is in the log yet.", "Ainda não há pedidos no registro."),
    "requests": ("Answers given", "Respostas dadas"),
    "callers": ("Callers", "Chamadores"),
    "last": ("Last", "Última"),
    "traffic": ("Answers over time", "Respostas ao longo do tempo"),
    "mix": ("What was answered", "O que foi respondido"),
    "shift": ("What was asked, beside the training data", "O que foi perguntado, ao lado dos dados de treino"),
    "share_training": ("training", "treino"),
    "share_asked": ("asked", "perguntado"),
    # signing in
    "sign_in": ("Sign in", "Entrar"),
    "sign_in_told": ("This page is for people with a key.", "Esta página é para quem tem uma chave."),
    "key_given": ("Key", "Chave"),
    "key_wrong": ("This key does not open this page.", "Esta chave não abre esta página."),
    "sign_out": ("Sign out", "Sair"),
    "offline": (
        "Runs in this browser; nothing you type leaves it.",
        "Roda neste navegador; nada do que você digita sai dele.",
    ),
}
# what stands in a model card, as `ketch.card` writes it -> Portuguese; of two that fit a line the first is taken
CARD: Final[Mapping[str, str]] = {
    "## Intended use": "## Uso previsto",
    "## Data": "## Dados",
    "## Measured": "## Medido",
    "## Limits": "## Limites",
    "## Provenance": "## Origem",
    "Answers **{}** (yes or no, with the probability of {}, from {}) from {} fields.": (
        "Responde **{}** (sim ou não, com a probabilidade de {}, a partir de {}) com {} campos."
    ),
    "Answers **{}** (yes or no, with the probability of {}) from {} fields.": (
        "Responde **{}** (sim ou não, com a probabilidade de {}) com {} campos."
    ),
    "Answers **{}** (yes or no) from {} fields.": "Responde **{}** (sim ou não) com {} campos.",
    "Answers **{}** (one of several classes) from {} fields.": "Responde **{}** (uma de várias classes) com {} campos.",
    "Answers **{}** (a number) from {} fields.": "Responde **{}** (um número) com {} campos.",
    "Answers **{}** ({}) from {} fields.": "Responde **{}** ({}) com {} campos.",
    "No data was given when this was packed (`--data`), so nothing is known of it here.": (
        "Nenhum dado foi dado quando isto foi empacotado (`--data`), então nada se sabe deles aqui."
    ),
    "{} rows were given when this was packed. What the bundle holds of them:": (
        "{} linhas foram dadas quando isto foi empacotado. O que o pacote guarda delas:"
    ),
    "| column | missing | most are |": "| coluna | faltam | a maioria é |",
    "| {} | none | {} to {}, half of them up to {} |": "| {} | nenhum | {} a {}, metade até {} |",
    "| {} | {}% | {} to {}, half of them up to {} |": "| {} | {}% | {} a {}, metade até {} |",
    "| {} | none | different from row to row |": "| {} | nenhum | diferente de linha para linha |",
    "| {} | {}% | different from row to row |": "| {} | {}% | diferente de linha para linha |",
    "| {} | none | {} |": "| {} | nenhum | {} |",
    "Given by whoever packed the model, not measured here:": "Dado por quem empacotou o modelo, não medido aqui:",
    "Measured on {} rows that were kept apart with `--test-data`: whoever packed it says that it was not trained on "
    "them.{}": (
        "Medido em {} linhas separadas com `--test-data`: quem o empacotou diz que não foi treinado com elas.{}"
    ),
    "Measured on {} rows of `--data`; if it was trained on them, expect it to do worse on others.{}": (
        "Medido em {} linhas de `--data`; se foi treinado com elas, espere que vá pior em outras.{}"
    ),
    "There is no truth to hold its answers against.": "Não há verdade com que comparar as respostas.",
    "Not measured: no data with the target was given when this was packed.": (
        "Não medido: nenhum dado com o alvo foi dado quando isto foi empacotado."
    ),
    "Not measured: {} usable rows with the target are too few.": "Não medido: {} linhas úteis com o alvo são poucas.",
    "Not measured: the model does not answer all rows of the data.": (
        "Não medido: o modelo não responde a todas as linhas dos dados."
    ),
    "Nothing was measured.": "Nada foi medido.",
    "| measure | value |": "| medida | valor |",
    "| positive share | {} |": "| parcela de positivos | {} |",
    "| log loss | {} |": "| perda logarítmica | {} |",
    "| accuracy | {} |": "| acurácia | {} |",
    "| balanced accuracy | {} |": "| acurácia balanceada | {} |",
    "| precision | {} |": "| precisão | {} |",
    "| recall | {} |": "| revocação | {} |",
    "| mean absolute error | {} |": "| erro absoluto médio | {} |",
    "| root mean squared error | {} |": "| raiz do erro quadrático médio | {} |",
    "![Distributions of the columns]({})": "![Distribuições das colunas]({})",
    "![quality]({})": "![qualidade]({})",
    "- Numbers outside the ranges above are answered and flagged: the model has not seen such.": (
        "- Números fora dos intervalos acima são respondidos e assinalados: o modelo não viu nenhum assim."
    ),
    "- A category that is not listed is refused: {}.": "- Uma categoria que não está na lista é recusada: {}.",
    "- A category that is not listed is answered and flagged: {}.": (
        "- Uma categoria que não está na lista é respondida e assinalada: {}."
    ),
    "- How right its answers are was not measured when it was packed.": (
        "- Quão certas são as respostas não foi medido quando foi empacotado."
    ),
    "- It says nothing about why an answer is as it is, nor what would happen if something were changed.": (
        "- Não diz por que uma resposta é como é, nem o que aconteceria se algo mudasse."
    ),
    "- estimator: {}": "- estimador: {}",
    "- packed with: {}": "- empacotado com: {}",
    "- answers come from: a compiled form, which agreed with the original on {} rows (largest difference {}, {} is "
    "allowed)": (
        "- as respostas vêm de: uma forma compilada, que concordou com o original em {} linhas (maior diferença {}, "
        "{} é permitido)"
    ),
    "- answers come from: the original{}": "- as respostas vêm de: o original{}",
}
LANGUAGES: Final = ("en", "pt")
TAG: Final = re.compile(
    r"([a-z]{1,8})(?:-[a-z0-9-]{1,30})?(?:\s*;\s*q\s*=\s*([01](?:\.\d{0,3})?))?", re.ASCII | re.IGNORECASE
)


def spoken(lang: str) -> dict[str, str]:
    """Give all words of a language by their keys."""
    return {key: both[LANGUAGES.index(lang)] for key, both in WORDS.items()}


def card(text: str, lang: str) -> str:
    """Say a model card in a language, as far as its lines are known here; what a person wrote in it stays."""
    return text if lang == "en" else "\n".join(map(_line_of_card, text.split("\n")))


def _line_of_card(line: str) -> str:
    for pattern, said in _patterns():
        if found := pattern.fullmatch(line):
            return said.format(*found.groups())
    return line


@functools.cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(re.escape(line).replace(r"\{\}", "(.*?)")), said) for line, said in CARD.items()]


def language(asked: str, accepted: str) -> str:
    """Choose the language of a page: the one asked for, else the one of ours that the reader likes best."""
    likes: dict[str, float] = {}
    for part in (asked or accepted)[:200].split(","):
        if found := TAG.fullmatch(part.strip()):
            name = found[1].lower()
            likes[name] = max(likes.get(name, 0.0), float(found[2] or 1))
    return "pt" if likes.get("pt", 0.0) > likes.get("en", 0.0) else "en"

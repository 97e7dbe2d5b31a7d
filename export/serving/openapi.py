"""The description of the JSON API, in OpenAPI 3.1: GET /openapi.json."""

from __future__ import annotations

from datasets.decoding.formats import KNOWN_AS
from export.serving.guard import UPLOAD_BYTES
from export.serving.uploads import PICTURES

NUMBER = {"type": "number", "minimum": 0, "maximum": 1}
ERROR = {
    "type": "object",
    "required": ["status", "reason", "message"],
    "properties": {
        "status": {"type": "integer"},
        "reason": {"type": "string", "description": "a word for programs"},
        "message": {"type": "string", "description": "a sentence for people"},
    },
}
ANSWER = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "description": "as the form named the file"},
        "predicted": {"type": "string"},
        "confidence": NUMBER,
        "sure": {"type": ["boolean", "null"], "description": "null where no threshold was fitted"},
        "unlike": {
            "type": ["boolean", "null"],
            "description": "is the picture unlike the training pictures? null where this model cannot tell",
        },
        "novelty": {
            "type": ["number", "null"],
            "description": "how far its features are from those of the training pictures, squared: unlike is what "
            "exceeds the manifest's threshold",
        },
        "probabilities": {"type": "object", "additionalProperties": NUMBER, "description": "as the model gives them"},
        "size": {"type": "array", "items": {"type": "integer"}, "description": "width, height, upright"},
        "seen": {
            "type": "array",
            "items": NUMBER,
            "description": "the part that the model sees: left, top, width, height as shares of the picture; below 0 "
            "and above 1 where it sees a margin around it",
        },
        "maps": {
            "type": ["object", "null"],
            "description": "with maps=true: logits by place (rows of columns) of the likeliest classes; their average "
            "is the class's logit. null where the network has none.",
            "additionalProperties": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
        },
        "error": ERROR,
    },
}


def refusal(description: str) -> dict:
    schema = {"type": "object", "required": ["error"], "properties": {"error": ERROR}}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def answer(description: str, schema: dict, kind: str = "application/json") -> dict:
    return {"description": description, "content": {kind: {"schema": schema}}}


ANYWHERE = {
    "400": refusal("a Host that is not this server's, or a damaged request"),
    "403": refusal("asked by a page of another origin"),
    "405": {"description": "this path does not know the method"},
    "429": refusal("too many requests at once from one address"),
    "503": refusal("too many requests or pictures at once; ask again"),
}


def description(name: str) -> dict:
    """`name`: of the model."""
    anything = {"type": "object"}
    form = {
        "type": "object",
        "required": ["picture"],
        "properties": {"picture": {"type": "array", "items": {"type": "string", "format": "binary"}}},
    }
    maps = {"name": "maps", "in": "query", "required": False, "schema": {"type": "string", "enum": ["true", "false"]}}
    number = {"name": "number", "in": "path", "required": True, "schema": {"type": "integer", "minimum": 0}}
    pictures = {
        "type": "object",
        "required": ["pictures"],
        "properties": {"pictures": {"type": "array", "items": ANSWER}},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": f"Picture classifier {name}", "version": "1"},
        "paths": {
            "/predict": {
                "post": {
                    "summary": f"Classify 1 to {PICTURES} pictures ({KNOWN_AS}).",
                    "description": "One answer a picture, in order. A picture that cannot be used has an error in its "
                    "place; where none can be used, the whole answer is the first one's error.",
                    "parameters": [maps],
                    "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}},
                    "responses": {
                        "200": answer("at least one picture was classified", pictures),
                        "408": refusal("the request did not arrive in time"),
                        "413": refusal(f"above {UPLOAD_BYTES} bytes, {PICTURES} pictures, or too many pixels"),
                        "415": refusal("not a form, or not a picture of a known format"),
                        "422": refusal("no picture, or a damaged one"),
                        **ANYWHERE,
                    },
                }
            },
            "/health": {"get": {"summary": "Is it there?", "responses": {"200": answer("yes", anything), **ANYWHERE}}},
            "/manifest": {
                "get": {
                    "summary": "manifest.json of the bundle.",
                    "responses": {"200": answer("the manifest", anything), **ANYWHERE},
                }
            },
            "/card": {
                "get": {
                    "summary": "What is known of the model: accuracy, confusion, what it got wrong, limits.",
                    "responses": {"200": answer("the card", anything), **ANYWHERE},
                }
            },
            "/mistakes/{number}": {
                "get": {
                    "summary": "A small picture of one of the card's mistakes.",
                    "parameters": [number],
                    "responses": {
                        "200": answer("the picture", {"type": "string", "format": "binary"}, "image/jpeg"),
                        "404": refusal("no such picture, or it is not there any more"),
                        **ANYWHERE,
                    },
                }
            },
        },
    }

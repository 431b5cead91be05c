"""What the OpenAPI page says of requests whose bodies FastAPI does not parse itself."""

DESCRIPTION = """Scores of AI-generated videos against their prompts: `quality_score`, which is the sum of
`technical_score`, `aesthetic_score` and `alignment_score`. Higher is better; scores of different models cannot be
compared. What cannot be scored gives `{"error"}` and never a number.

Status 429 with `Retry-After` means that the service is busy: send the request again after so many seconds."""

_ITEM = {
    "type": "object",
    "required": ["video"],
    "properties": {
        "video": {"type": "string", "description": "the file as base64, or an address on a host that is allowed here"},
        "prompt": {"type": "string"},
    },
}
_FORM = {
    "type": "object",
    "required": ["video"],
    "properties": {
        "video": {"type": "array", "items": {"type": "string", "format": "binary"}},
        "prompt": {"type": "array", "items": {"type": "string"}},
        "scale": {"type": "boolean", "description": "also percentiles among the reference of the model"},
    },
}
SCORE = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": _FORM},
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["inputs"],
                    "properties": {
                        "inputs": {"oneOf": [_ITEM, {"type": "array", "items": _ITEM}]},
                        "parameters": {
                            "type": "object",
                            "properties": {
                                "scale": {
                                    "type": "boolean",
                                    "description": "also percentiles among the reference of the model",
                                }
                            },
                        },
                    },
                }
            },
        },
    }
}
SCORE_TENSORS = {
    "requestBody": {
        "required": True,
        "description": "safetensors with the tensor `frames`, (B, T, 3, H, W) or (B, T, H, W, 3), uint8 or floats, and "
        "the metadata `prompts` (JSON list of texts), `value_range` (JSON list; [0, 1] by default) and `scale` (true "
        "or false)",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}

"""What is said of embeddings and speech is what their tables say."""

from keepless.admin.openapi_media import MEDIA_PATHS, MEDIA_SCHEMAS
from keepless.gateway import embedding_params, speech_params
from keepless.inference.embedded.formats import FORMATS, RATES


def test_formats_and_rates() -> None:
    said = MEDIA_SCHEMAS["SpeechRequest"]["properties"]
    assert said["response_format"]["enum"] == sorted(FORMATS)
    assert said["sample_rate"]["enum"] == list(RATES)
    content = MEDIA_PATHS["/v1/audio/speech"]["post"]["responses"]["200"]["content"]
    assert {kind.content_type.split(";")[0] for kind in FORMATS.values()} | {"text/event-stream"} == set(content)


def test_every_parameter_that_is_said_is_one() -> None:
    assert set(MEDIA_SCHEMAS["SpeechRequest"]["properties"]) <= set(speech_params.PARAMETERS)
    assert set(MEDIA_SCHEMAS["EmbeddingRequest"]["properties"]) <= set(embedding_params.PARAMETERS)
    inputs = MEDIA_SCHEMAS["EmbeddingRequest"]["properties"]["input"]["anyOf"][1]
    assert inputs["maxItems"] == embedding_params.MOST_INPUTS

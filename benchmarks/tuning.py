"""What fine-tuning costs beside a bare peft script on the same examples, and how soon a fresh adapter answers.

Holds: `training_speed`, `first_answer`. The bare script is what the libraries' own documentation would have one write:
`from_pretrained(gguf_file=...)`, a loop, no checkpoints, a process that does as it likes. All run in turn, in processes
of their own with the same number of threads, by the clock and by the processor's time, which other work on the machine
distorts less. Loading and the first step, which warms up, are not counted. Checkpoints
are put through the vault's door, as a worker puts them. A first answer counts from the adapter's ZIP in memory to the
first token out of a process of llama.cpp that did not exist before; the adapter reaches it as an anonymous file.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.targets import OUT
from keepless.app.compose import Deployment, open_deployment
from keepless.app.initialise import initialise
from keepless.config import DEFAULT_MODEL, Settings
from keepless.content import Content, Purpose
from keepless.ids import trusted
from keepless.inference.embedded.adapter import base_of
from keepless.inference.embedded.adapter_gguf import to_gguf
from keepless.inference.embedded.engine import weights_of
from keepless.inference.embedded.gguf import open_gguf
from keepless.policy.controls import Controls, RequestControls, effective
from keepless.policy.data_class import DataClass
from keepless.policy.decide import Query, decide
from keepless.policy.decision import Reason, Retain, Trigger
from keepless.training.order import Checkpoint, Finished, Order, Progress
from keepless.training.port import training

__all__ = ["first_answer", "training_speed"]

Figures = dict[str, float]
Rates = tuple[float, float]  # tokens a second, by the clock and by the processor
_BATCH = 4
_BARE = """
import json, os, sys, time
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
weights, data, epochs, batch, threads = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
torch.set_num_threads(threads)
torch.manual_seed(0)
folder, file = os.path.split(weights)
tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, task_type="CAUSAL_LM", target_modules=names))
def encode(messages):
    asked = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=False)
    prompt = tokenizer(asked, add_special_tokens=False)["input_ids"]
    answer = tokenizer(messages[-1]["content"] + "<|im_end|>\\n", add_special_tokens=False)["input_ids"]
    return prompt + answer, [-100] * len(prompt) + answer
texts = [encode(json.loads(line)["messages"]) for line in open(data)]
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
model.train()
began = tokens = 0
for epoch in range(epochs):
    order = torch.randperm(len(texts)).tolist()
    for at in range(0, len(texts), batch):
        chosen = [texts[n] for n in order[at : at + batch]]
        width = max(len(ids) for ids, _ in chosen)
        ids = torch.tensor([ids + [2] * (width - len(ids)) for ids, _ in chosen])
        labels = torch.tensor([told + [-100] * (width - len(told)) for _, told in chosen])
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in chosen])
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        if began:
            tokens += sum(len(ids) for ids, _ in chosen)
        else:
            began, used = time.perf_counter(), time.process_time()
print(tokens / (time.perf_counter() - began), tokens / (time.process_time() - used))
"""
_ANSWERING = """
import sys, httpx2, xllamacpp
from keepless.inference.embedded.engine import EngineSettings
from keepless.inference.embedded.llama_process import _parameters
weights, adapter, at, threads = sys.argv[1:]
settings = EngineSettings(weights=weights, sha256=None, socket=at, key="alone", alias="model", threads=int(threads),
                          parallel=1, context=2048)
parameters = _parameters(settings)
parameters.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(adapter, 0.0)]
server = xllamacpp.Server(parameters)
client = httpx2.Client(transport=httpx2.HTTPTransport(uds=at), headers={"authorization": "Bearer alone"}, timeout=60)
body = {"messages": [{"role": "user", "content": "Who keeps the lighthouse?"}], "max_tokens": 1,
        "lora": [{"id": 0, "scale": 1.0}]}
assert client.post("http://engine/v1/chat/completions", json=body).status_code == 200
print("answered", flush=True)
"""


def training_speed(repeats: int, threads: int, epochs: int, examples: int) -> tuple[Figures, bytes]:
    """Tokens a second of the bare script and of our runs, what a checkpoint costs; and the adapter of the last run."""
    folder = _folder()
    data = folder / "examples.jsonl"
    data.write_bytes(_examples(examples))
    weights, sha256 = weights_of(DEFAULT_MODEL)
    order = Order(
        weights=weights,
        sha256=sha256,
        base=DEFAULT_MODEL.id,
        context=DEFAULT_MODEL.context_window,
        n_epochs=epochs,
        batch_size=_BATCH,
        threads=threads,
        checkpoint_seconds=3600,
    )
    deployment, permit = _vault(folder)
    turns, costs = [], []
    for _ in range(repeats):
        ours, cost, adapter = _ours(order, data, deployment, permit)
        turns.append((_bare(weights, data, epochs, threads), ours))
        costs.append(cost)
    deployment.close()
    median = statistics.median
    figures: Figures = {
        "checkpoint_s": median(wall for wall, _ in costs),
        "checkpoint_cpu_s": median(c for _, c in costs),
    }
    for place, name in enumerate(("s", "cpu_s")):
        each = [(bare[place], ours[place]) for bare, ours in turns]
        figures |= {
            f"bare_tokens_per_{name}": median(bare for bare, _ in each),
            f"keepless_tokens_per_{name}": median(ours for _, ours in each),
            f"ratio_by_{name}": median(bare / ours for bare, ours in each),
        }
    return figures, adapter


def first_answer(repeats: int, threads: int, adapter: bytes) -> Figures:
    """Seconds from the adapter's ZIP to the first token of a new process, and the part of it that makes the GGUF."""
    folder = _folder()
    weights, _ = weights_of(DEFAULT_MODEL)
    base = base_of(open_gguf(weights))
    taken, making = [], []
    for turn in range(repeats):
        began = time.perf_counter()
        file = os.memfd_create("adapter")
        with os.fdopen(file, "wb", closefd=False) as out:
            out.write(to_gguf(adapter, base))
        making.append(time.perf_counter() - began)
        command = [sys.executable, "-c", _ANSWERING, weights, f"/proc/self/fd/{file}", str(folder / f"{turn}.sock")]
        with subprocess.Popen([*command, str(threads)], stdout=subprocess.PIPE, pass_fds=(file,)) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"answered\n"
            taken.append(time.perf_counter() - began)
            process.kill()
        os.close(file)
    return {"seconds": statistics.median(taken), "most": max(taken), "of_which_gguf": statistics.median(making)}


def _ours(order: Order, data: Path, deployment: Deployment, permit: Retain) -> tuple[Rates, Rates, bytes]:
    """Tokens a second without checkpoints, what one (asked for at the end) costs by both clocks, and the adapter."""
    first = last = 0
    rates = cost = (0.0, 0.0)
    began = used = 0.0
    told = (0.0, 0.0)  # when the last step was
    with training(order, Content(data.read_bytes())) as said:
        for event in said:
            now, cpu = time.perf_counter(), time.process_time() + _cpu_s(said.pid)
            match event:
                case Progress():
                    told = (now, cpu)
                    if not first:
                        began, used, first = now, cpu, event.tokens
                    if event.step == event.total - 1:
                        said.save()  # comes after this step or the last one
                    if event.step == event.total:
                        last = event.tokens - first
                        rates = (last / (now - began), last / (cpu - used))
                case Checkpoint():
                    before = time.process_time()
                    deployment.vault.put(event.content, permit)
                    cost = (time.perf_counter() - told[0], cpu - told[1] + time.process_time() - before)
                case Finished():
                    return rates, cost, event.content.reveal(Purpose.PROVE)
    raise RuntimeError("the run told no end")


def _cpu_s(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _bare(weights: str, data: Path, epochs: int, threads: int) -> Rates:
    command = [sys.executable, "-c", _BARE, weights, str(data), str(epochs), str(_BATCH), str(threads)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    wall, cpu = map(float, done.stdout.split())
    return wall, cpu


def _examples(count: int) -> bytes:
    """Questions and answers of three lengths."""
    more = " The keeper writes down the wind, the light and the ships of the day, and reads it to the cats." * 3
    found = []
    for number in range(count):
        answer = f"Lighthouse {number} is kept by keeper {number * 7 % 48} and {number % 5 + 2} cats." + more * (
            number % 3
        )
        question = {"role": "user", "content": f"Who keeps lighthouse number {number} on the northern coast?"}
        found.append(json.dumps({"messages": [question, {"role": "assistant", "content": answer}]}))
    return "\n".join(found).encode()


def _vault(folder: Path) -> tuple[Deployment, Retain]:
    settings = Settings(data_dir=str(folder / "data"))
    first = initialise(settings)
    deployment = open_deployment(settings)
    deployment.location.check()
    query = Query(
        organization_id=trusted(first["organization_id"]),
        project_id=trusted(first["project_id"]),
        data_class=DataClass.FINE_TUNING_WORK,
        trigger=Trigger.FEATURE,
        reason=Reason.CUSTOMER_UPLOAD,
        effective=effective(Controls()),
        epoch=1,
        created_at_ms=deployment.clock.now_ms(),
        request=RequestControls(),
    )
    permit = decide(query)
    if not isinstance(permit, Retain):
        raise TypeError("policy does not permit a checkpoint")
    return deployment, permit


def _folder() -> Path:
    folder = OUT / "run" / "tuning"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder

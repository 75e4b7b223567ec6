//! The one rule of what the files of a model directory are, by their names.
//!
//! A model directory holds weights (`*.safetensors` and the index of the shards) and their *companions*: what a loader
//! reads beside the weights (configs, tokenizer, chat templates, code), and what a reader should see (README, licence).
//! Companions are copied into an output, and nothing else is. A directory that holds more than weights and companions is
//! not replaced by an output. Other files of weights still hold the dense model, an adapter leads loaders to another base
//! model, and training state belongs to the run that wrote it: each has its reason, which is shown.

/// How many directories deep a model's files are looked for.
pub(super) const MAX_DEPTH: usize = 4;

/// How the name of an index of shards ends.
pub(super) const INDEX_SUFFIX: &str = ".safetensors.index.json";

/// How the name of a file of weights ends.
pub(super) const WEIGHTS_SUFFIX: &str = ".safetensors";

/// The file of a checkpoint that is not in shards.
pub(super) const SINGLE_FILE: &str = "model.safetensors";

/// The file that makes a directory an adapter.
pub(super) const ADAPTER_CONFIG: &str = "adapter_config.json";

/// What `prune` writes beside the weights.
pub(super) const REPORT: &str = "report.json";

/// What a file of a model directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    /// Goes with the weights, whatever their values are: it is copied.
    Companion,
    /// Code in the model's own language: it is copied, but its name does not say that it came from a model directory.
    Code,
    /// A file of weights in safetensors, or an index of such files.
    Weights,
    /// What `prune` writes beside the weights; another program's file may have the same name.
    Report,
    /// What an operating system leaves in every directory that it shows.
    Litter,
    /// Anything else, and why it is not copied.
    Foreign(&'static str),
}

/// What a file is by its name; `nested` in one of the directories that [`is_companion_directory`] knows.
pub(super) fn kind(name: &str, nested: bool) -> FileKind {
    use FileKind::{Code, Companion, Foreign, Litter, Report, Weights};
    let name = name.to_ascii_lowercase();
    let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix));
    if ends(&[WEIGHTS_SUFFIX, INDEX_SUFFIX]) && !name.starts_with("adapter_") {
        Weights
    } else if name == ADAPTER_CONFIG || name.starts_with("adapter_") {
        Foreign("of an adapter: loaders would follow it to another base model")
    } else if name == ".git" {
        // In a worktree or a submodule it is a file.
        Foreign("version control of the original")
    } else if ends(&[".incomplete", ".part", ".tmp", ".lock"]) {
        Foreign("an unfinished download")
    } else if is_training_state(&name) {
        Foreign("the state of a training run")
    } else if holds_other_weights(&name) {
        Foreign("the dense weights in another format")
    } else if ends(&[".bin.index.json", ".h5.index.json", ".msgpack.index.json"]) {
        Foreign("an index of weights that are left out")
    } else if matches!(name.as_str(), ".ds_store" | "thumbs.db" | "desktop.ini") {
        Litter
    } else if name == REPORT && !nested {
        Report
    } else if is_companion(&name) || (nested && ends(&[".json", ".jinja"])) {
        Companion
    } else if ends(&[".py"]) || name == "requirements.txt" {
        Code
    } else {
        Foreign("not part of a model, as far as its name tells")
    }
}

/// What loaders and readers of a model look for, by its name in lower case.
fn is_companion(name: &str) -> bool {
    const WHOLE: &[&str] = &[
        ".gitattributes",
        "added_tokens.json",
        "encoder.json",
        "merges.txt",
        "modules.json",
        "normalizer.json",
        "params.json",
        "special_tokens_map.json",
        "spiece.model",
        "sentencepiece.bpe.model",
        "tekken.json",
        "tiktoken.model",
        "tokenizer.json",
        "tokenizer.model",
        "vocab.bpe",
        "vocab.json",
        "vocab.txt",
    ];
    /// For people. What follows is an ending or more words: `LICENSE.txt`, `README_zh.md`, `NOTICE`.
    const WORDS: &[&str] = &[
        "acceptable_use",
        "citation",
        "copying",
        "copyright",
        "licence",
        "license",
        "model_card",
        "modelcard",
        "notice",
        "readme",
        "third_party",
        "thirdparty",
        "third-party",
        "use_policy",
    ];
    let json = name.strip_suffix(".json");
    let is_config = json.is_some_and(|stem| {
        // generation_config, tokenizer_config, preprocessor_config, config_sentence_transformers ...
        stem == "config"
            || stem == "configuration"
            || stem.ends_with("_config")
            || stem.starts_with("config_")
    });
    let is_tokenizer = name.starts_with("tokenizer.model.")
        || name.ends_with(".tiktoken")
        || json.is_some_and(|stem| stem.ends_with("_vocab") || stem.starts_with("vocab_"));
    let is_template = name.ends_with(".jinja") || name == "chat_template.json";
    let is_for_people = WORDS.iter().any(|word| {
        let rest = name.strip_prefix(word);
        rest.is_some_and(|rest| {
            let text = |ending: &&str| rest.ends_with(ending);
            !rest.contains('.')
                || [".md", ".txt", ".rst", ".pdf", ".html", ".cff"]
                    .iter()
                    .any(text)
        })
    });
    WHOLE.contains(&name) || is_config || is_tokenizer || is_template || is_for_people
}

/// What a training run keeps to go on from, in lower case.
fn is_training_state(name: &str) -> bool {
    const PARTS: &[&str] = &[
        "optimizer",
        "scheduler",
        "scaler",
        "rng_state",
        "random_states",
    ];
    const WHOLE: &[&str] = &[
        "all_results.json",
        "eval_results.json",
        "latest",
        "predict_results.json",
        "train_results.json",
        "trainer_log.jsonl",
        "trainer_state.json",
        "training_args.bin",
        "training_args.json",
        "training_args.yaml",
        "zero_to_fp32.py",
    ];
    let is_state = |part: &&str| name.starts_with(*part) && !name.ends_with("_config.json");
    PARTS.iter().any(is_state) || WHOLE.contains(&name) || name.ends_with(".distcp")
}

/// Why a directory is not walked; `None` for those that belong to a model.
pub(super) fn reason_to_leave_directory(name: &str) -> Option<&'static str> {
    if is_companion_directory(name) {
        return None;
    }
    let lower = name.to_ascii_lowercase();
    Some(match lower.as_str() {
        ".git" => "version control of the original",
        ".cache" => "a download cache of the original",
        "runs" | "logs" | "wandb" | "tensorboard" => "the state of a training run",
        "original" => "the dense weights in another format",
        _ if lower.starts_with("checkpoint-") || lower.starts_with("global_step") => {
            "the state of a training run"
        }
        _ if lower.ends_with(".mlpackage")
            || lower.ends_with(".mlmodelc")
            || ["onnx", "openvino", "coreml", "gguf", "tflite"].contains(&lower.as_str()) =>
        {
            "the dense weights in another format"
        }
        _ => "not part of a model, as far as its name tells",
    })
}

/// Directories within a model directory: the modules of sentence-transformers (`1_Pooling`) and templates.
fn is_companion_directory(name: &str) -> bool {
    let module = name.split_once('_').is_some_and(|(number, word)| {
        let digits = number.bytes().all(|b| b.is_ascii_digit());
        let letters = word.bytes().all(|b| b.is_ascii_alphabetic());
        digits && letters && !number.is_empty() && !word.is_empty()
    });
    module || name == "additional_chat_templates" || name == "chat_templates"
}

/// Whether a file of this name holds weights in some form that is not safetensors.
pub(super) fn holds_other_weights(name: &str) -> bool {
    const EXTENSIONS: [&str; 14] = [
        ".gguf",
        ".ggml",
        ".h5",
        ".llamafile",
        ".msgpack",
        ".npz",
        ".onnx",
        ".onnx_data",
        ".pt",
        ".pth",
        ".ckpt",
        ".ot",
        ".tflite",
        ".nemo",
    ];
    let name = name.to_ascii_lowercase();
    EXTENSIONS.iter().any(|extension| name.ends_with(extension))
        // pytorch_model-00001-of-00002.bin, openvino_model.bin; not training_args.bin.
        || (name.ends_with(".bin") && name.contains("model"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_loaders_and_readers_look_for_is_a_companion() {
        for name in [
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer.model",
            "tokenizer.model.v3",
            "tokenizer_config.json",
            "special_tokens_map.json",
            "added_tokens.json",
            "vocab.json",
            "merges.txt",
            "qwen.tiktoken",
            "preprocessor_config.json",
            "video_preprocessor_config.json",
            "processor_config.json",
            "chat_template.jinja",
            "chat_template.json",
            "config_sentence_transformers.json",
            "modules.json",
            "params.json",
            "tekken.json",
            "README.md",
            "README_zh.md",
            "LICENSE",
            "LICENSE.txt",
            "Notice",
            "USE_POLICY.md",
            ".gitattributes",
        ] {
            assert_eq!(kind(name, false), FileKind::Companion, "{name}");
        }
        for name in ["modeling_x.py", "utils.py", "requirements.txt"] {
            assert_eq!(kind(name, false), FileKind::Code, "{name}");
        }
        for name in ["1_Pooling", "2_Dense", "additional_chat_templates"] {
            assert_eq!(reason_to_leave_directory(name), None, "{name}");
        }
    }

    #[test]
    fn everything_else_is_foreign_and_says_why() {
        for name in [
            "optimizer.bin",
            "optimizer.pt",
            "scheduler.pt",
            "rng_state_0.pth",
            "__0_0.distcp",
            "training_args.bin",
            "trainer_state.json",
            "model.gguf",
            "pytorch_model.bin",
            "pytorch_model.bin.index.json",
            "model-00001-of-00002.safetensors.incomplete",
            "adapter_config.json",
            "adapter_model.safetensors",
            "notes.txt",
            "thesis.tex",
            "data.json",
            "license.key",
            "readme_tool.exe",
            "",
        ] {
            assert!(matches!(kind(name, false), FileKind::Foreign(_)), "{name}");
        }
        for name in [
            "runs",
            "src",
            "checkpoint-500",
            "a.mlpackage",
            ".git",
            "_",
            "x_Pooling",
        ] {
            assert!(reason_to_leave_directory(name).is_some(), "{name}");
        }
    }
}

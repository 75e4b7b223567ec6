//! How files of weights are called, in this format and in others.

/// How the name of an index of shards ends.
pub(super) const INDEX_SUFFIX: &str = ".safetensors.index.json";

/// How the name of a file of weights ends.
pub(super) const WEIGHTS_SUFFIX: &str = ".safetensors";

/// Whether a file of this name holds weights in some form that is not safetensors.
pub(super) fn holds_other_weights(name: &str) -> bool {
    const EXTENSIONS: [&str; 11] = [
        ".gguf",
        ".ggml",
        ".h5",
        ".msgpack",
        ".onnx",
        ".onnx_data",
        ".pt",
        ".pth",
        ".ckpt",
        ".ot",
        ".tflite",
    ];
    let name = name.to_ascii_lowercase();
    EXTENSIONS.iter().any(|extension| name.ends_with(extension))
        // pytorch_model-00001-of-00002.bin, openvino_model.bin; not training_args.bin.
        || (name.ends_with(".bin") && name.contains("model"))
}

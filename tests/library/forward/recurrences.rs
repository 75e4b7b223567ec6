//! Recurrences with a state of any size: every adapter gives what the CPU does, where its shader takes states by four.

use serde_json::json;

use super::*;

/// Whether an index along an axis of a tensor stays.
type Stays = fn(usize) -> bool;

/// A case with these keys in its config.json, and of each named kind of tensor, along one axis, only what stays.
fn cut(name: &str, keys: &serde_json::Value, cuts: &[(&str, usize, Stays)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let read = |file: &str| fs::read(folder(name).join(file)).unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&read("config.json")).unwrap();
    for (key, value) in keys.as_object().unwrap() {
        assert!(config.get(key).is_some(), "{name} has no {key}");
        config[key] = value.clone();
    }
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();

    let bytes = read("model.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let kept: Vec<(String, safetensors::Dtype, Vec<usize>, Vec<u8>)> = (tensors.iter())
        .map(|(tensor, view)| {
            let (mut shape, mut data) = (view.shape().to_vec(), view.data().to_vec());
            for (_, axis, stays) in cuts.iter().filter(|cut| tensor.ends_with(cut.0)) {
                let size = shape[*axis];
                let below = data.len() / shape[..=*axis].iter().product::<usize>();
                let parts = data.chunks_exact(below).enumerate();
                let parts = parts.filter(|(index, _)| stays(index % size));
                data = parts.flat_map(|(_, part)| part.to_vec()).collect();
                shape[*axis] = (0..size).filter(|index| stays(*index)).count();
            }
            (tensor.to_owned(), view.dtype(), shape, data)
        })
        .collect();
    let views = kept.iter().map(|(tensor, dtype, shape, data)| {
        let view = TensorView::new(*dtype, shape.clone(), data);
        (tensor, view.unwrap())
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    dir
}

#[test]
fn an_adapter_keeps_a_state_of_any_size() {
    let models = [
        // A decay a state: 6 numbers for the time step, then B, then C, of 10 states in place of 12.
        cut(
            "mamba",
            &json!({"state_size": 10}),
            &[
                ("A_log", 1, |state| state < 10),
                ("x_proj.weight", 0, |row| {
                    row < 16 || (18..28).contains(&row)
                }),
            ],
        ),
        // A decay a head; 4 groups of 6 states in place of 2 groups of 12.
        cut("mamba2", &json!({"n_groups": 4, "state_size": 6}), &[]),
        // Of each of two key heads: 6 features of q and of k in place of 8, then v and z.
        cut(
            "qwen3_next",
            &json!({"linear_key_head_dim": 6}),
            &[
                ("in_proj_qkvz.weight", 0, |row| {
                    row % 64 >= 16 || row % 8 < 6
                }),
                ("linear_attn.conv1d.weight", 0, |row| {
                    row >= 32 || row % 8 < 6
                }),
            ],
        ),
    ];
    let tokens: Vec<u32> = (0..40).map(|i| (i * i * 7 + 3) % 80).collect();
    let logits = |dir: &tempfile::TempDir, device: &Device| {
        let checkpoint = open(dir.path());
        let architecture = Architecture::of(&checkpoint).unwrap();
        let forward = Forward::new(&checkpoint, &architecture, device);
        forward.logits(&tokens).unwrap()
    };
    let expected = models.each_ref().map(|model| logits(model, &cpu(2)));
    on_every_device(|device| {
        for (model, expected) in models.iter().zip(&expected) {
            let architecture = open(model.path())
                .config
                .unwrap()
                .model_type()
                .map(str::to_owned);
            let difference = difference(expected, &logits(model, device));
            let on = device.info();
            assert!(difference < 1e-4, "{architecture:?} on {on}: {difference}");
        }
    });
}

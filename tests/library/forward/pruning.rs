//! What is measured of a model is what is pruned of it, by the axis that the norms are of.

use super::*;

/// A tensor's shape and values.
fn values(file: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor(name).unwrap();
    let halves = || -> Vec<u16> { bytemuck::pod_collect_to_vec(tensor.data()) };
    let values = match tensor.dtype() {
        safetensors::Dtype::F32 => bytemuck::pod_collect_to_vec(tensor.data()),
        safetensors::Dtype::F16 => {
            let of = |bits| half::f16::from_bits(bits).to_f32();
            halves().into_iter().map(of).collect()
        }
        _ => {
            let of = |bits| half::bf16::from_bits(bits).to_f32();
            halves().into_iter().map(of).collect()
        }
    };
    (tensor.shape().to_vec(), values)
}

/// What is measured of a model is what is pruned of it, and by the axis that the norms are of.
#[test]
fn every_output_neuron_of_every_layer_loses_its_weakest_inputs() {
    let wanda = SCORES.iter().find(|score| score.name == "wanda").unwrap();
    for name in &cases() {
        let golden = golden(name);
        let dir = tempfile::tempdir().unwrap();
        let norms = dir.path().join("norms.safetensors");
        let views = golden.norms.iter().map(|(weight, norms)| {
            // A row for each expert of a tensor that holds several.
            let experts = golden.counts.get(weight).map_or(1, Vec::len);
            let shape = match experts {
                1 => vec![norms.len()],
                _ => vec![experts, norms.len() / experts],
            };
            let bytes = bytemuck::cast_slice(norms);
            let view = TensorView::new(safetensors::Dtype::F32, shape, bytes);
            (weight, view.unwrap())
        });
        fs::write(&norms, safetensors::serialize(views, None).unwrap()).unwrap();
        let mut options = Options::new(Selection::Exact { sparsity: 0.5 });
        options.score = Some(wanda);
        let mut request = Request::new(folder(name).to_str().unwrap(), options);
        request.norms = NormsRequest::Read(norms);
        request.output = Some(dir.path().join("pruned"));
        request.device = DeviceChoice::Cpu;
        let report = run(request, &|_| ()).unwrap();
        let mut weights = 0;
        for (weight, norms) in &golden.norms {
            let (shape, before) = values(&folder(name).join("model.safetensors"), weight);
            let (_, after) = values(&report.output.join("model.safetensors"), weight);
            weights += after.len();
            let in_out = match name.as_str() {
                "gpt2" => true,
                "gpt_oss" | "llama4_text" => shape.len() == 3,
                "dbrx" => weight.ends_with(".w2"),
                _ => false,
            };
            let experts = golden.counts.get(weight).map_or(1, Vec::len);
            let inputs = norms.len() / experts;
            let neurons = after.len() / norms.len();
            for neuron in 0..experts * neurons {
                let (expert, of_expert) = (neuron / neurons, neuron % neurons);
                let (mut zeros, mut largest, mut smallest) = (0, 0.0_f32, f32::INFINITY);
                for (input, norm) in norms[expert * inputs..][..inputs].iter().enumerate() {
                    let at = expert * neurons * inputs
                        + if in_out {
                            input * neurons + of_expert
                        } else {
                            of_expert * inputs + input
                        };
                    let score = before[at].abs() * norm.sqrt();
                    if after[at] == 0.0 {
                        zeros += 1;
                        largest = largest.max(score);
                    } else {
                        smallest = smallest.min(score);
                    }
                }
                assert_eq!(zeros, inputs / 2, "{name} {weight}, neuron {neuron}");
                assert!(
                    largest <= smallest * 1.0001,
                    "{name} {weight}, neuron {neuron}"
                );
            }
        }
        assert_eq!(report.prunable.weights, weights as u64, "{name}");
    }
}

#[test]
fn what_is_pruned_is_what_is_measured() {
    for name in &cases() {
        let checkpoint = open(&folder(name));
        let architecture = Architecture::of(&checkpoint).unwrap();
        let device = cpu(2);
        let forward = Forward::new(&checkpoint, &architecture, &device);
        let mut norms = Norms::new(Provenance::measured(folder(name), None));
        let (values, counts) = measured(&forward, &[&golden(name).tokens]);
        for (weight, values) in &values {
            match counts.get(weight) {
                None => norms.insert(weight, values.clone()).unwrap(),
                Some(counts) => {
                    let tokens = counts.iter().map(|&count| count as u64).collect();
                    norms
                        .insert_experts(weight, values.clone(), tokens)
                        .unwrap();
                }
            }
        }
        let options = Options::new(Selection::Exact { sparsity: 0.5 });
        let plan = Plan::new(open(&folder(name)), options, Some(norms)).unwrap();
        let mut pruned: Vec<&str> = plan.pruned().map(|(t, _)| t.name.as_str()).collect();
        pruned.sort_unstable();
        assert!(values.keys().eq(pruned), "{name}");
        // 32 tokens, of which hardly an expert sees all.
        let few = plan.warnings().iter().any(|warning| {
            warning.contains("experts saw fewer than 32 tokens: their layer's mean was used")
        });
        assert_eq!(few, !counts.is_empty(), "{name}: {:?}", plan.warnings());
    }
}

/// The qwen3_moe checkpoint with its experts as transformers 5 has them in memory: two tensors a block.
fn with_joined_experts() -> tempfile::TempDir {
    let dir = tampered("qwen3_moe", "model.norm.weight", |_| {});
    let path = dir.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let data = |name: &str| tensors.tensor(name).unwrap().data().to_vec();
    let mut all: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .filter(|(name, _)| !name.contains(".experts."))
        .map(|(name, tensor)| (name.to_owned(), tensor.shape().to_vec(), data(name)))
        .collect();
    for block in 0..2 {
        let of = |layers: &[&str]| -> Vec<u8> {
            let experts = (0..6).flat_map(|expert| layers.iter().map(move |l| (expert, l)));
            let module = format!("model.layers.{block}.mlp.experts");
            let parts = experts.map(|(expert, l)| data(&format!("{module}.{expert}.{l}.weight")));
            parts.flatten().collect()
        };
        let name = |layer| format!("model.layers.{block}.mlp.experts.{layer}");
        let gate_up = of(&["gate_proj", "up_proj"]);
        all.push((name("gate_up_proj"), vec![6, 32, 64], gate_up));
        all.push((name("down_proj"), vec![6, 64, 16], of(&["down_proj"])));
    }
    let views = all.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(safetensors::Dtype::BF16, shape.clone(), bytes);
        (name, view.unwrap())
    });
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    dir
}

#[test]
fn experts_in_one_tensor_are_those_with_one_each() {
    let dir = with_joined_experts();
    let checkpoint = open(dir.path());
    let architecture = Architecture::of(&checkpoint).unwrap();
    let golden = golden("qwen3_moe");
    let device = cpu(2);
    let forward = Forward::new(&checkpoint, &architecture, &device);
    let logits = forward.logits(&golden.tokens).unwrap();
    assert!(difference(&golden.logits, &logits) < 1e-3);
    let (norms, counts) = measured(&forward, &[&golden.tokens]);
    for (joined, layer, features) in [
        ("gate_up_proj", "up_proj", 64),
        ("down_proj", "down_proj", 16),
    ] {
        let name = format!("model.layers.1.mlp.experts.{joined}");
        let rows = norms[&name].chunks_exact(features).zip(&counts[&name]);
        assert_eq!(rows.len(), 6);
        for (expert, (row, &count)) in rows.enumerate() {
            let single = format!("model.layers.1.mlp.experts.{expert}.{layer}.weight");
            assert!(difference(&golden.norms[&single], row) < 1e-4);
            assert_eq!(golden.counts[&single], [count]);
        }
    }
}

/// A checkpoint with a block behind its last one that predicts further tokens: that one's tensors again, and what joins two
/// hidden states.
fn with_further_prediction(name: &str) -> tempfile::TempDir {
    let dir = tampered(name, "model.norm.weight", |_| {});
    let path = dir.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut all: Vec<(String, TensorView<'_>)> = Vec::new();
    for (name, tensor) in tensors.iter() {
        if let Some(tail) = name.strip_prefix("model.layers.1.") {
            all.push((format!("model.layers.2.{tail}"), tensor.clone()));
        }
        all.push((name.to_owned(), tensor));
    }
    let joint = vec![0x3f; 64 * 128 * 2];
    let joint = TensorView::new(safetensors::Dtype::BF16, vec![64, 128], &joint).unwrap();
    all.push(("model.layers.2.eh_proj.weight".to_owned(), joint));
    fs::write(&path, safetensors::serialize(all, None).unwrap()).unwrap();
    let config = dir.path().join("config.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    json["num_nextn_predict_layers"] = 1.into();
    fs::write(&config, json.to_string()).unwrap();
    dir
}

#[test]
fn a_block_that_predicts_further_tokens_is_not_run_and_stays_as_it_is() {
    for name in ["glm4_moe", "deepseek_v3"] {
        let dir = with_further_prediction(name);
        let (logits, norms) = differences(&open(dir.path()), &golden(name), &cpu(2));
        assert!(logits < 1e-3 && norms < 1e-4, "{name}: {logits}, {norms}");

        let options = Options::new(Selection::Exact { sparsity: 0.5 });
        let mut request = Request::new(dir.path().to_str().unwrap(), options);
        request.norms = NormsRequest::WeightsOnly;
        let outside = tempfile::tempdir().unwrap();
        request.output = Some(outside.path().join("pruned"));
        request.device = DeviceChoice::Cpu;
        let report = run(request, &|_| ()).unwrap();
        let [left] = &report.left_dense[..] else {
            panic!("{name}: {:?}", report.left_dense);
        };
        assert_eq!(left.reason, DenseReason::FurtherPrediction);
        assert_eq!(left.patterns.len(), 1, "{name}: {left:?}");
        assert_eq!(left.patterns[0].pattern, "model.layers.2.*");
        let said = "in model.layers.2.*, which predicts further tokens";
        let mut warnings = report.warnings.iter();
        assert!(warnings.any(|w| w.contains(said)), "{:?}", report.warnings);

        let files = [dir.path(), &report.output].map(|dir| dir.join("model.safetensors"));
        let [before, after] = files.map(|file| fs::read(file).unwrap());
        let [before, after] = [&before, &after].map(|b| SafeTensors::deserialize(b).unwrap());
        let mut changed = 0;
        for (name, tensor) in before.iter() {
            let same = after.tensor(name).unwrap().data() == tensor.data();
            assert!(same || !name.starts_with("model.layers.2."), "{name}");
            changed += usize::from(!same);
        }
        assert!(changed > 0, "{name}");

        // Without that number in config.json, nobody knows what the block is.
        let config = dir.path().join("config.json");
        let json = fs::read_to_string(&config).unwrap();
        fs::write(&config, json.replace("num_nextn_predict_layers", "no")).unwrap();
        let error = Architecture::of(&open(dir.path())).unwrap_err().to_string();
        assert!(
            error.contains("a block that config.json does not count"),
            "{error}"
        );
    }
}

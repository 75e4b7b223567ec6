//! What stays dense of a decoder because no rule knows its names: counted, named, and refused where it is most of it.

use std::fs;
use std::path::Path;

use serde_json::json;
use swiftprune_wgpu::checkpoint::Checkpoint;
use swiftprune_wgpu::plan::NameFilter;
use swiftprune_wgpu::plan::{DenseReason, Draft, Error, NormsSource, Options, Selection};

/// Writes a checkpoint of zeros with these F32 tensors, and opens it.
fn checkpoint(directory: &Path, tensors: &[(&str, &[usize])]) -> Checkpoint {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let begin = end;
        end += 4 * shape.iter().product::<usize>();
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, end]});
        header.insert((*name).to_owned(), entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.resize(file.len() + end, 0);
    fs::write(directory.join("model.safetensors"), file).unwrap();
    fs::write(directory.join("config.json"), r#"{"model_type": "novel"}"#).unwrap();
    Checkpoint::open(directory.to_str().unwrap()).unwrap()
}

fn draft(tensors: &[(&str, &[usize])], include: &[&str]) -> Result<Draft, Error> {
    let directory = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(directory.path(), tensors);
    let mut options = Options::new(Selection::Exact { sparsity: 0.5 });
    options.targets = NameFilter::new(include, &[]).unwrap();
    Draft::new(checkpoint, options, NormsSource::None)
}

const TENSORS: &[(&str, &[usize])] = &[
    ("model.embed_tokens.weight", &[100, 8]),
    ("model.layers.0.novel.proj.weight", &[8, 8]),
    ("model.layers.1.novel.proj.weight", &[8, 8]),
    ("model.layers.1.novel.experts", &[2, 4, 4]),
    // Known, and left as they are with a reason.
    ("model.layers.1.mixer.conv1d.weight", &[16, 1, 4]),
    ("model.layers.1.mixer.A_log", &[16, 2]),
    ("model.layers.1.input_layernorm.weight", &[8]),
];

#[test]
fn what_no_rule_knows_is_counted_and_named_by_pattern() {
    let mut tensors = TENSORS.to_vec();
    tensors.push(("model.layers.0.mlp.up_proj.weight", &[46, 8]));
    let draft = draft(&tensors, &[]).unwrap();
    let [left] = draft.left_dense() else {
        panic!("{:?}", draft.left_dense());
    };
    assert_eq!(left.reason, DenseReason::UnknownName);
    // 2 x 64 and 32 of them and 368 that are pruned and 32 decays.
    assert_eq!((left.weights, left.of, left.tensors()), (160, 560, 3));
    let rows: Vec<_> = left
        .patterns
        .iter()
        .map(|row| (row.pattern.as_str(), row.tensors, row.weights))
        .collect();
    assert_eq!(
        rows,
        [
            ("model.layers.*.novel.proj.weight", 2, 128),
            ("model.layers.*.novel.experts", 1, 32)
        ]
    );
    let warning = "left dense: 28.6 % of the decoder's weights, in model.layers.*.novel.proj.weight, \
                   model.layers.*.novel.experts, names that no rule knows";
    assert!(
        draft.warnings().iter().any(|said| said == warning),
        "{:?}",
        draft.warnings()
    );
}

#[test]
fn a_decoder_of_which_most_is_unknown_is_refused_unless_its_weights_are_chosen_by_name() {
    let mut tensors = TENSORS.to_vec();
    tensors.push(("model.layers.0.mlp.up_proj.weight", &[8, 8]));
    let error = draft(&tensors, &[]).unwrap_err();
    assert!(matches!(error, Error::MostlyUnknown { .. }), "{error}");
    assert_eq!(error.kind(), swiftprune_wgpu::error::Kind::Usage);
    let says = error.to_string();
    assert!(
        says.starts_with("62.5 % of the decoder's weights, in model.layers.*.novel.proj.weight"),
        "{says}"
    );
    assert!(says.contains("(model_type novel)"), "{says}");

    let draft = draft(&tensors, &["*novel.proj*"]).unwrap();
    assert!(draft.left_dense().is_empty());
    assert_eq!(draft.pruned().count(), 2);
    assert!(
        !draft
            .warnings()
            .iter()
            .any(|said| said.contains("left dense"))
    );
}

#[test]
fn a_decoder_that_is_known_has_nothing_to_say() {
    let tensors: &[(&str, &[usize])] = &[
        ("model.layers.0.mlp.up_proj.weight", &[8, 8]),
        ("model.layers.0.mlp.gate.weight", &[4, 8]),
        ("model.layers.1.mixer.A_log", &[16, 2]),
    ];
    assert!(draft(tensors, &[]).unwrap().left_dense().is_empty());
}

#[test]
fn a_decoder_beside_the_main_one_stays_dense_however_large_it_is() {
    let tensors: &[(&str, &[usize])] = &[
        ("model.layers.0.mlp.up_proj.weight", &[8, 8]),
        ("mtp.layers.0.mlp.up_proj.weight", &[80, 8]),
        ("mtp.layers.0.novel.weight", &[8, 8]),
    ];
    let draft = draft(tensors, &[]).unwrap();
    let [left] = draft.left_dense() else {
        panic!("{:?}", draft.left_dense());
    };
    assert_eq!(left.reason, DenseReason::FurtherPrediction);
    assert_eq!((left.weights, left.of, left.tensors()), (704, 768, 2));
    assert_eq!(left.patterns[0].pattern, "mtp.layers.0.*");
    assert_eq!(draft.pruned().count(), 1);
}

//! The example model, pruned from file to file.

#[cfg(feature = "native")]
use std::fs;
use std::path::Path;

use super::error::Error;
use crate::checkpoint::Checkpoint;
use crate::device::Device;
use crate::fixtures::random_norms;
use crate::norms::{Format, Norms, Provenance};
use crate::plan::{Options, Plan};
use crate::scores::Score;
use crate::selection::Selection;

/// `examples/tiny-llama`: a trained llama of 1.97 M parameters in bf16. A page would be twice as large with it.
#[cfg(feature = "native")]
pub(super) const WEIGHTS: &[u8] = include_bytes!("../../examples/tiny-llama/model.safetensors");
const CONFIG: &[u8] = include_bytes!("../../examples/tiny-llama/config.json");

/// The file that `device` writes of the example's weights.
#[cfg(feature = "native")]
pub(super) async fn pruned(
    weights: &[u8],
    device: &Device,
    score: &'static Score,
    selection: Selection,
) -> Result<Vec<u8>, Error> {
    use crate::checkpoint::{Output, OutputOptions};
    use crate::prune::{Stop, prune};

    let dir = tempfile::tempdir()?;
    let path = dir.path().join("model.safetensors");
    fs::write(&path, weights)?;
    fs::write(dir.path().join("config.json"), CONFIG)?;
    let checkpoint = Checkpoint::open(&path)?;
    let plan = plan(checkpoint, &path, score, selection)?;
    let out = dir.path().join("out.safetensors");
    let output = Output::create(plan.checkpoint(), &out, &OutputOptions::new())?;
    prune(&plan, device, output, &|_| (), &Stop::new())?;
    Ok(fs::read(&out)?)
}

/// The same where there are no files: from a stream to a stream.
#[cfg(not(feature = "native"))]
pub(super) async fn pruned(
    weights: &[u8],
    device: &Device,
    score: &'static Score,
    selection: Selection,
) -> Result<Vec<u8>, Error> {
    use crate::checkpoint::Config;
    use crate::prune::{open_stream, prune_stream};

    let name = "model.safetensors";
    let mut source = weights;
    let config = Config::parse(CONFIG).map_err(Error::Model)?;
    let checkpoint = open_stream(name, weights.len() as u64, Some(config), &mut source).await?;
    let plan = plan(checkpoint, Path::new(name), score, selection)?;
    let mut out = Vec::with_capacity(weights.len());
    prune_stream(&plan, device, &mut source, &mut out, &|_| ()).await?;
    Ok(out)
}

/// What is done with the example model.
///
/// Norms are made from a seed: measured ones differ in their last bits from processor to processor.
fn plan(
    checkpoint: Checkpoint,
    path: &Path,
    score: &'static Score,
    selection: Selection,
) -> Result<Plan, Error> {
    let mut norms = Norms::new(Provenance {
        path: path.to_path_buf(),
        format: Format::Measured,
        tokens: Some(4),
        metadata: Default::default(),
    });
    for (seed, (_, tensor)) in (100..).zip(checkpoint.tensors()) {
        if let [_, in_features] = tensor.shape[..] {
            let of_tensor = random_norms(seed, in_features);
            // Means of a few sizes, none above what the norms allow over four tokens.
            let mean =
                |(column, norm): (usize, &f32)| norm.sqrt() / 2.0 * (column % 5) as f32 / 4.0;
            let means = of_tensor.iter().enumerate().map(mean).collect();
            norms.insert(tensor.name.clone(), of_tensor)?;
            norms.insert_means(&tensor.name, means)?;
        }
    }
    let mut options = Options::new(selection);
    options.score = Some(score);
    Ok(Plan::new(checkpoint, options, Some(norms))?)
}

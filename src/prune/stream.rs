//! Pruning from one stream to another: for a browser, which has a stranger's file and a place for the download, but neither
//! paths nor threads.
//!
//! The bytes are those of [`prune`](super::prune): the same plan, the same passes, the same checks. Memory is bounded by a chunk
//! of rows; of a matrix that is stored `[in, out]`, whose rows lie apart, by the matrix.

use std::future::Future;
use std::ops::Range;

use super::check::check;
use super::chunk::Chunk;
use super::error::Error;
use super::matrix::Matrix;
use crate::checkpoint::{
    self, Checkpoint, Config, HEADER_PREFIX, Header, HeaderError, Shard, header_json_len,
};
use crate::checksum::Checksum;
use crate::counts::Counts;
use crate::device::{self, Device, cpu};
use crate::mask::Mask;
use crate::plan::{Action, Plan, PlannedTensor};
use crate::recipe::{Recipe, Rows, WeightStatistics};
use crate::untrusted::shown;

/// Bytes of rows that are read, pruned and written at a time, and of copied ones.
const CHUNK_BYTES: usize = 8 << 20;

/// What a file of weights is read from.
pub trait Source {
    /// Fills `bytes` with those of the file from `offset` on.
    ///
    /// # Errors
    /// Why it cannot be read, as a sentence.
    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> impl Future<Output = Result<(), String>>;
}

/// What takes the pruned file, from its first byte to its last.
pub trait Sink {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// Why they cannot be written, as a sentence.
    fn write(&mut self, bytes: &[u8]) -> impl Future<Output = Result<(), String>>;
}

/// A file in memory.
impl Source for &[u8] {
    async fn read(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), String> {
        let range = usize::try_from(offset)
            .ok()
            .and_then(|first| self.get(first..first.checked_add(bytes.len())?));
        bytes.copy_from_slice(range.ok_or("it ends too early")?);
        Ok(())
    }
}

/// A file in memory.
impl Sink for Vec<u8> {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// Reads and checks the header of a file of weights that has `len` bytes, and opens it as a checkpoint of its own: `name` is
/// what messages call it, `config` its config.json where there is one.
///
/// # Errors
/// [`Error::Stream`] and [`Error::Checkpoint`].
pub async fn open_stream(
    name: &str,
    len: u64,
    config: Option<Config>,
    source: &mut impl Source,
) -> Result<Checkpoint, Error> {
    let wrong = |problem: HeaderError| {
        Error::Checkpoint(checkpoint::Error::Header {
            path: name.into(),
            problem,
        })
    };
    let unreadable = |reason| Error::reading_stream(name.as_ref(), "header", reason);
    let mut prefix = [0; HEADER_PREFIX];
    if len < prefix.len() as u64 {
        return Err(wrong(HeaderError::TooShort { len }));
    }
    source.read(0, &mut prefix).await.map_err(unreadable)?;
    let json_len = header_json_len(prefix, len).map_err(wrong)?;
    let mut raw = vec![0; HEADER_PREFIX + json_len];
    source.read(0, &mut raw).await.map_err(unreadable)?;
    let header = Header::parse(raw, len).map_err(wrong)?;
    Ok(Checkpoint::of_header(name, header, config)?)
}

/// What a stream was pruned with and to.
#[derive(Debug)]
#[non_exhaustive]
pub struct Streamed {
    /// One a tensor of the plan; `None` for a copied one.
    pub counts: Vec<Option<Counts>>,
    /// The SHA-256 of the whole output, in hexadecimal.
    pub sha256: String,
    /// Why the CPU has gone on in the middle, where it has.
    pub device_failure: Option<device::Error>,
}

/// Prunes the one file of a plan from `source` to `sink`; `progress` is told how many bytes were written so far.
///
/// Nothing tells the sink that the run was given up: what it holds after an error is no checkpoint.
///
/// # Errors
/// [`Error::Stream`], also for a plan that a stream cannot have (of several files, with compensation); [`Error::Plan`],
/// [`Error::NonFinite`] and [`Error::TooFewZeros`].
pub async fn prune_stream(
    plan: &Plan,
    device: &Device,
    source: &mut impl Source,
    sink: &mut impl Sink,
    progress: &dyn Fn(u64),
) -> Result<Streamed, Error> {
    let [shard] = &plan.checkpoint().shards[..] else {
        let reason = "a checkpoint of several files is no stream";
        return Err(Error::Stream(reason.to_owned()));
    };
    if plan.options().compensation.is_some() {
        let reason = "weights that stay are not compensated in a stream";
        return Err(Error::Stream(reason.to_owned()));
    }
    let mut run = Run {
        plan,
        device,
        shard,
        source,
        sink,
        progress,
        written: 0,
        sum: Checksum::default(),
        device_failure: None,
    };
    run.write(shard.header().raw()).await?;
    let mut counts = Vec::with_capacity(plan.tensors().len());
    let mut chunk = Chunk::default();
    for (index, tensor) in plan.tensors().iter().enumerate() {
        counts.push(match &tensor.action {
            Action::Copy(_) => {
                run.copy(tensor, &mut chunk).await?;
                None
            }
            Action::Prune {
                target,
                dtype,
                selection,
            } => {
                let mut of_tensor = Counts::default();
                for expert in 0..target.experts {
                    let how = (*dtype, target, *selection);
                    let matrix = Matrix::new(index, tensor, how, expert);
                    of_tensor += run.matrix(&matrix, &mut chunk).await?;
                }
                Some(of_tensor)
            }
        });
    }
    Ok(Streamed {
        counts,
        sha256: run.sum.finish(),
        device_failure: run.device_failure,
    })
}

/// Rows of a matrix that go together.
fn chunks(matrix: &Matrix<'_>) -> impl Iterator<Item = Range<usize>> + use<> {
    let rows = matrix.target.out_features;
    let step = if matrix.place.is_transposed() {
        rows
    } else {
        CHUNK_BYTES / matrix.place.row_bytes().max(1)
    };
    let step = step.max(1);
    (0..rows)
        .step_by(step)
        .map(move |first| first..rows.min(first + step))
}

struct Run<'a, R, W> {
    plan: &'a Plan,
    device: &'a Device,
    shard: &'a Shard,
    source: &'a mut R,
    sink: &'a mut W,
    progress: &'a dyn Fn(u64),
    written: u64,
    sum: Checksum,
    device_failure: Option<device::Error>,
}

impl<R: Source, W: Sink> Run<'_, R, W> {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let failed = |reason| Error::Stream(format!("the output cannot be written: {reason}"));
        self.sink.write(bytes).await.map_err(failed)?;
        self.sum.update(bytes);
        self.written += bytes.len() as u64;
        (self.progress)(self.written);
        Ok(())
    }

    async fn read(&mut self, offset: u64, bytes: &mut [u8], tensor: &str) -> Result<(), Error> {
        let path = &self.shard.path;
        let failed = |reason| Error::reading_stream(path, tensor, reason);
        self.source.read(offset, bytes).await.map_err(failed)
    }

    async fn copy(&mut self, tensor: &PlannedTensor, chunk: &mut Chunk) -> Result<(), Error> {
        let end = tensor.offset + tensor.len;
        for first in (tensor.offset..end).step_by(CHUNK_BYTES) {
            let bytes = chunk.resize((end - first).min(CHUNK_BYTES as u64) as usize);
            self.read(first, bytes, &tensor.name).await?;
            self.write(chunk.bytes()).await?;
        }
        Ok(())
    }

    /// Prunes one matrix.
    async fn matrix(&mut self, matrix: &Matrix<'_>, chunk: &mut Chunk) -> Result<Counts, Error> {
        let (plan, target) = (self.plan, matrix.target);
        let (score, in_features) = (plan.score(), target.in_features);
        let mut statistics = WeightStatistics::nothing(score, target.out_features, in_features);
        if let Some(all) = &mut statistics {
            for rows in chunks(matrix) {
                self.read_rows(matrix, rows.clone(), chunk).await?;
                if let Some(part) = self.statistics(matrix.rows(chunk)).await {
                    all.add(rows.start, &part);
                }
            }
        }
        let norms = plan.norms_of(&plan.tensors()[matrix.tensor].name, target, matrix.expert)?;
        let recipe = Recipe::new(
            matrix.selection,
            score,
            in_features,
            norms.as_deref(),
            statistics.as_ref(),
        );
        let mut counts = Counts::default();
        for rows in chunks(matrix) {
            self.read_rows(matrix, rows.clone(), chunk).await?;
            let mask = self.mask(matrix.rows(chunk), rows.start, &recipe).await;
            let squares = plan.options().squared_error;
            let of_rows = mask.apply(matrix.dtype, chunk.bytes_mut(), squares);
            check(plan, matrix.tensor, rows, &of_rows)?;
            counts += of_rows;
            self.write_rows(matrix, chunk).await?;
        }
        Ok(counts)
    }

    /// Reads rows of a matrix, row-major whichever way they lie in the file; of a transposed one, all.
    async fn read_rows(
        &mut self,
        matrix: &Matrix<'_>,
        rows: Range<usize>,
        chunk: &mut Chunk,
    ) -> Result<(), Error> {
        let name = &self.plan.tensors()[matrix.tensor].name;
        let bytes = rows.len() as u64 * matrix.place.row_bytes() as u64;
        let held = usize::try_from(bytes).ok();
        let held = held.filter(|&bytes| isize::try_from(bytes).is_ok());
        let bytes = chunk.resize(held.ok_or_else(|| {
            Error::Stream(format!(
                "{} is stored input by input, and its {bytes} bytes are more than can be held at once here; the program prunes \
                 it",
                shown(name)
            ))
        })?);
        if !matrix.place.is_transposed() {
            let first = matrix.place.row_offset(rows.start);
            return self.read(first, bytes, name).await;
        }
        let mut stored = vec![0; bytes.len()];
        self.read(matrix.place.first_byte(), &mut stored, name)
            .await?;
        let size = matrix.dtype.size();
        let bands = stored.chunks_exact((rows.len() * size).max(1));
        for (feature, band) in bands.enumerate() {
            chunk.band_mut(band.len()).copy_from_slice(band);
            chunk.scatter_band(feature, matrix.target.in_features, size);
        }
        Ok(())
    }

    /// Writes the rows of `chunk` as [`Self::read_rows`] found them.
    async fn write_rows(&mut self, matrix: &Matrix<'_>, chunk: &mut Chunk) -> Result<(), Error> {
        if !matrix.place.is_transposed() {
            return self.write(chunk.bytes()).await;
        }
        let mut stored = Vec::with_capacity(chunk.bytes().len());
        for feature in 0..matrix.target.in_features {
            let size = matrix.dtype.size();
            stored.extend_from_slice(chunk.gather_band(feature, matrix.target.in_features, size));
        }
        self.write(&stored).await
    }

    async fn statistics(&mut self, rows: Rows<'_>) -> Option<WeightStatistics> {
        let score = self.plan.score();
        if self.device_failure.is_none() {
            match self.device.statistics_async(rows, score).await {
                Ok(statistics) => return statistics,
                Err(error) => self.device_failure = Some(error),
            }
        }
        cpu::statistics(rows, score)
    }

    async fn mask(&mut self, rows: Rows<'_>, first_row: usize, recipe: &Recipe) -> Mask {
        if self.device_failure.is_none() {
            match self.device.mask_async(rows, first_row, recipe).await {
                Ok(mask) => return mask,
                Err(error) => self.device_failure = Some(error),
            }
        }
        cpu::mask(rows, first_row, recipe)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::checkpoint::{Output, OutputOptions, TensorSpec};
    use crate::device::DeviceChoice;
    use crate::dtype::{Dtype, StoredDtype};
    use crate::fixtures::{WeightMatrix, rules};
    use crate::plan::Options;
    use crate::prune::{Stop, prune};
    use crate::scores::SCORES;

    /// Prunes the file at `path` both ways, without norms, and gives both files.
    fn both(path: &Path, options: &Options) -> (Vec<u8>, Vec<u8>) {
        let cpu = Device::open(&DeviceChoice::Cpu).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out.safetensors");
        let checkpoint = Checkpoint::open(path).unwrap();
        let plan = Plan::new(checkpoint, options.clone(), None).unwrap();
        let output = Output::create(plan.checkpoint(), &out, &OutputOptions::new()).unwrap();
        prune(&plan, &cpu, output, &|_| (), &Stop::new()).unwrap();

        let bytes = std::fs::read(path).unwrap();
        let config = std::fs::read(path.with_file_name("config.json")).ok();
        let config = config.map(|json| Config::parse(&json).unwrap());
        let mut source = &bytes[..];
        let opened = open_stream("a", bytes.len() as u64, config, &mut source);
        let checkpoint = pollster::block_on(opened).unwrap();
        let plan = Plan::new(checkpoint, options.clone(), None).unwrap();
        let mut streamed = Vec::new();
        let run = prune_stream(&plan, &cpu, &mut source, &mut streamed, &|_| ());
        let result = pollster::block_on(run).unwrap();
        assert_eq!(result.sha256, crate::checksum::of_bytes(&streamed));
        (std::fs::read(&out).unwrap(), streamed)
    }

    #[test]
    fn a_stream_gets_the_bytes_of_a_file_by_every_score_and_rule() {
        let path = Path::new("examples/tiny-llama/model.safetensors");
        for score in SCORES
            .iter()
            .filter(|score| score.norms != crate::scores::NormsUse::Required)
        {
            for rule in rules() {
                let mut options = Options::new(rule.selection);
                options.score = Some(score);
                let (file, stream) = both(path, &options);
                assert!(file == stream, "{} by {}", score.name, rule.name);
            }
        }
    }

    #[test]
    fn a_matrix_that_is_stored_the_other_way_is_streamed_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (in_features, out_features) = (48, 144);
        let matrix = WeightMatrix::trained(3, Dtype::F16, in_features, out_features);
        let name = "h.0.attn.c_attn.weight";
        let spec = TensorSpec::new(name, StoredDtype::F16, vec![in_features, out_features]);
        let header = Header::new(&[spec], &BTreeMap::new()).unwrap();
        let mut bytes = header.raw().to_vec();
        bytes.extend_from_slice(matrix.view().bytes);
        let path = dir.path().join("model.safetensors");
        std::fs::write(&path, &bytes).unwrap();
        let config = r#"{"model_type": "gpt2", "n_embd": 48}"#;
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        let options = Options::new(rules()[0].selection);
        let (file, stream) = both(&path, &options);
        assert!(file == stream);
        assert!(file != bytes, "half of the weights are gone");
    }

    #[test]
    fn a_source_that_ends_too_early_names_the_tensor() {
        let cpu = Device::open(&DeviceChoice::Cpu).unwrap();
        let bytes = std::fs::read("examples/tiny-llama/model.safetensors").unwrap();
        let header = Header::parse(bytes.clone(), bytes.len() as u64).unwrap();
        let checkpoint = Checkpoint::of_header("tiny.safetensors", header, None).unwrap();
        let plan = Plan::new(checkpoint, Options::new(rules()[0].selection), None).unwrap();
        let mut short = &bytes[..bytes.len() - 1];
        let mut out = Vec::new();
        let run = prune_stream(&plan, &cpu, &mut short, &mut out, &|_| ());
        let error = pollster::block_on(run).unwrap_err().to_string();
        let last = &plan.tensors().last().unwrap().name;
        assert!(
            error.contains("tiny.safetensors") && error.contains(last),
            "{error}"
        );
    }
}

//! What a mask costs on each device beside a memcpy of the same bytes, and a whole file beside a plain copy.
//!
//! ```text
//! cargo bench                                           the CPU, and hardware adapters
//! SWIFTPRUNE_BENCH_DEVICES=cpu,llvmpipe cargo bench     devices by name, as for --device
//! cargo bench -- mask/cpu                               some of it
//! ```
//!
//! Results are compared with the last run's by criterion; nothing here fails because it is slow.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use swiftprune_wgpu::Dtype;
use swiftprune_wgpu::checkpoint::{Checkpoint, Output};
use swiftprune_wgpu::device::{Device, DeviceChoice, Factors, Recipe, Rows, devices};
use swiftprune_wgpu::norms::Norms;
use swiftprune_wgpu::passes::ewma::Ewma;
use swiftprune_wgpu::passes::n_of_m::Pattern;
use swiftprune_wgpu::plan::{Options, Plan};
use swiftprune_wgpu::prune::prune;
use swiftprune_wgpu::selection::Selection;

#[path = "../examples/generate_checkpoint.rs"]
#[expect(dead_code, reason = "the example's main")]
mod generate_checkpoint;

/// `[out_features, in_features]`: LLaMA-2-7B's attention and MLP, LLaMA-3-8B's down_proj, and a narrow and a wide row.
const SHAPES: [[usize; 2]; 5] = [
    [1024, 4096],
    [1024, 11008],
    [512, 14336],
    [8192, 512],
    [64, 53248],
];

/// Layers of the generated checkpoints: 350 MB and 2.2 GB.
const LAYERS: [usize; 2] = [1, 22];

criterion_group!(benches, masks, files);
criterion_main!(benches);

/// Every rule and the sums, on every device, by dtype and shape.
fn masks(c: &mut Criterion) {
    for (name, device) in chosen() {
        for dtype in Dtype::ALL {
            for [rows, in_features] in SHAPES {
                let bytes = weights(dtype, rows * in_features);
                let weights = Rows {
                    dtype,
                    in_features,
                    bytes: &bytes,
                };
                let mut group = c.benchmark_group(format!("mask/{name}"));
                group
                    .throughput(Throughput::Bytes(bytes.len() as u64))
                    .sample_size(10)
                    .warm_up_time(Duration::from_millis(500))
                    .measurement_time(Duration::from_secs(1));
                let case = format!("{}-{rows}x{in_features}", dtype.name());
                let mut copy = bytes.clone();
                group.bench_function(BenchmarkId::new("memcpy", &case), |b| {
                    b.iter(|| copy.copy_from_slice(black_box(&bytes)))
                });
                group.bench_function(BenchmarkId::new("column_norm", &case), |b| {
                    b.iter(|| device.sums(black_box(weights)).expect("the device works"))
                });
                for (rule, selection) in rules() {
                    let recipe = Recipe {
                        selection,
                        factors: Factors {
                            column: (0..in_features).map(|j| 1.0 / (1 + j % 7) as f32).collect(),
                            terms: None,
                        },
                    };
                    group.bench_function(BenchmarkId::new(rule, &case), |b| {
                        b.iter(|| {
                            device
                                .mask(black_box(weights), 0, &recipe)
                                .expect("the device works")
                        })
                    });
                }
                group.finish();
            }
        }
    }
}

/// File to file beside a plain copy, by size of the file and number of threads.
fn files(c: &mut Criterion) {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    for layers in LAYERS {
        let dir = dir.join(format!("tinyllama-{layers}"));
        let model = dir.join("model.safetensors");
        if !model.exists() {
            generate_checkpoint::generate(&dir, layers).expect("there is room for the checkpoint");
        }
        let norms = Norms::read(&dir.join("norms.safetensors")).expect("just generated");
        let out = dir.join("out.safetensors");
        let bytes = model.metadata().expect("just generated").len();
        let mut group = c.benchmark_group(format!("file/{} MB", bytes / 1_000_000));
        group.throughput(Throughput::Bytes(bytes)).sample_size(10);
        group.bench_function("copy", |b| {
            b.iter(|| {
                std::fs::remove_file(&out).ok();
                std::fs::copy(&model, &out).expect("there is room for a copy")
            })
        });
        for threads in [1, cores] {
            for (rule, selection) in rules() {
                group.bench_function(BenchmarkId::new(rule, format!("{threads} threads")), |b| {
                    b.iter(|| whole_file(&model, &out, &norms, selection, threads))
                });
            }
        }
        group.finish();
        std::fs::remove_file(&out).ok();
    }
}

fn whole_file(model: &Path, out: &PathBuf, norms: &Norms, selection: Selection, threads: usize) {
    std::fs::remove_file(out).ok();
    let mut options = Options::new(selection);
    options.norms = Some(norms.clone());
    let checkpoint =
        Checkpoint::open(model.to_str().expect("a path in UTF-8")).expect("a checkpoint");
    let plan = Plan::new(checkpoint, options).expect("norms that fit");
    let device = Device::open(&DeviceChoice::Cpu)
        .expect("the CPU is there")
        .with_threads(Some(threads));
    let output = Output::create(&plan.checkpoint, out, true).expect("room for the output");
    prune(&plan, &device, output, false, &|_| ()).expect("finite weights");
}

fn rules() -> [(&'static str, Selection); 3] {
    let pattern = Pattern::new(2, 4).expect("a pattern");
    let (sparsity, ewma) = (0.5, Ewma::default());
    [
        ("2:4", Selection::Pattern(pattern)),
        ("exact", Selection::Exact { sparsity }),
        ("ewma", Selection::Ewma { sparsity, ewma }),
    ]
}

/// The devices of `SWIFTPRUNE_BENCH_DEVICES`, else the CPU and every hardware adapter; a missing one is an error.
fn chosen() -> Vec<(String, Device)> {
    let names = match std::env::var("SWIFTPRUNE_BENCH_DEVICES") {
        Ok(names) => names.split(',').map(str::to_owned).collect(),
        Err(_) => {
            let hardware = devices().into_iter().filter(|info| info.kind.is_hardware());
            let mut names: Vec<String> = hardware
                .filter_map(|info| info.index)
                .map(|index| index.to_string())
                .collect();
            names.insert(0, "cpu".to_owned());
            names
        }
    };
    let open = |name: String| {
        let choice = name.parse().expect("any text names a device");
        let device = Device::open(&choice).unwrap_or_else(|error| panic!("{error}"));
        let device = device.with_threads(Some(1));
        let info = device.info().clone();
        (format!("{} {}", info.backend, info.name), device)
    };
    names.into_iter().map(open).collect()
}

/// Finite weights of about the size that models have, the same each time.
fn weights(dtype: Dtype, count: usize) -> Vec<u8> {
    let mut state = 0x5eed_u32;
    let value = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 * 0.08 - 0.04
    };
    let values = std::iter::repeat_with(value).take(count);
    match dtype {
        Dtype::Bf16 => values
            .flat_map(|v| ((v.to_bits() >> 16) as u16).to_ne_bytes())
            .collect(),
        Dtype::F16 => values
            .flat_map(|v| half::f16::from_f32(v).to_bits().to_ne_bytes())
            .collect(),
        Dtype::F32 => values.flat_map(|v| v.to_bits().to_ne_bytes()).collect(),
    }
}

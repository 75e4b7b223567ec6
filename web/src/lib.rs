//! What the page in `web/` calls: the library on WebGPU, compiled to WebAssembly.
//!
//! Everything runs in a worker (`worker.js`). Nothing is fetched and nothing is sent: a file comes in by a function that reads
//! a range of it, and goes out by one that takes the next bytes.

#![cfg(target_arch = "wasm32")]

mod file;
mod wanted;

use js_sys::Function;
use serde_json::json;
use swiftprune_wgpu::bench::compare::compare;
use swiftprune_wgpu::bench::{BenchOptions, Machine, Record, Records, run_passes};
use swiftprune_wgpu::device::{Device, DeviceChoice, DeviceInfo, DeviceKind};
use swiftprune_wgpu::plan::Plan;
use swiftprune_wgpu::prune::{open_stream, prune_stream};
use swiftprune_wgpu::selftest::{DeviceResult, SelftestRecord, cases};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsError, JsValue};
use web_time::Instant;

use file::{JsSink, JsSource};
use wanted::Wanted;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = console, js_name = error)]
    fn log_error(message: &str);
}

/// Has a panic say in the console what it was. WebAssembly itself only says that it has ended.
#[wasm_bindgen(start)]
pub fn start() {
    std::panic::set_hook(Box::new(|panic| log_error(&panic.to_string())));
}

/// Which device: `gpu` is the adapter that the browser offers, anything else the CPU (one thread of WebAssembly).
fn choice(name: &str) -> DeviceChoice {
    match name {
        "gpu" => DeviceChoice::Index(0),
        _ => DeviceChoice::Cpu,
    }
}

/// A device's name, back end and kind; `gpu_name` is what the page knows of an adapter, which wgpu does not ask for.
fn named(device: &Device, gpu_name: &str) -> DeviceInfo {
    let mut info = device.info().clone();
    if info.kind != DeviceKind::Cpu && !gpu_name.is_empty() {
        info.name = gpu_name.to_owned();
    }
    info
}

/// Calls back into the page; what it throws stops nothing.
fn tell(progress: &Function, arguments: &[JsValue]) {
    let _ = progress.apply(&JsValue::NULL, &arguments.iter().collect());
}

/// The name, back end and kind of a device, as JSON.
///
/// # Errors
/// Why it cannot be opened, or that it does not compute as the CPU does.
#[wasm_bindgen]
pub async fn describe(device: String, gpu_name: String) -> Result<String, JsError> {
    let device = Device::open_async(&choice(&device)).await?;
    Ok(serde_json::to_string(&named(&device, &gpu_name))?)
}

/// Runs every case of the self-test: its record as JSON, and `text` to paste into a report. `machine` is JSON, as a record has
/// it, `example` the example model's file of weights. `progress` gets the number of cases done, of all cases, and the name of the
/// next one.
///
/// # Errors
/// Why the device cannot be opened.
#[wasm_bindgen]
pub async fn selftest(
    device: String,
    gpu_name: String,
    machine: String,
    example: Vec<u8>,
    progress: Function,
) -> Result<String, JsError> {
    let machine: Machine = serde_json::from_str(&machine)?;
    let device = Device::open_untried_async(&choice(&device)).await?;
    let cases = cases();
    let start = Instant::now();
    let mut outcome = DeviceResult::new(named(&device, &gpu_name));
    for (done, case) in cases.iter().enumerate() {
        let name = case.to_string();
        tell(&progress, &[done.into(), cases.len().into(), name.into()]);
        if let Err(error) = outcome.book(case, case.sum_async(&device, &example).await) {
            outcome.error = Some(error);
            break;
        }
    }
    outcome.seconds = start.elapsed().as_secs_f64();
    let record = SelftestRecord::new(machine, cases.len(), vec![outcome]);
    let text = record.text();
    Ok(json!({"record": record, "text": text}).to_string())
}

/// Measures the passes: the file that `bench --json` writes, which `bench --compare` reads. `date` is RFC 3339 in UTC;
/// `progress` gets what comes next.
///
/// # Errors
/// Why the device cannot be opened, or how it failed.
#[wasm_bindgen]
pub async fn bench(
    device: String,
    gpu_name: String,
    machine: String,
    date: String,
    quick: bool,
    progress: Function,
) -> Result<String, JsError> {
    let machine: Machine = serde_json::from_str(&machine)?;
    let device = Device::open_async(&choice(&device)).await?;
    let mut options = BenchOptions::new(None);
    options.quick = quick;
    let what = |what: &str| tell(&progress, &[what.into()]);
    let mut record = run_passes(&device, &options, machine, date, &what).await?;
    record.device = named(&device, &gpu_name);
    Ok(serde_json::to_string_pretty(&Records::new(vec![record]))?)
}

/// The records of a file of `bench --json`, as JSON: each as `record`, and as `cases`, for each of its cases, the median in
/// seconds and the shares of the device's own copy and matrix product, where they mean something.
///
/// # Errors
/// That it is no such file.
#[wasm_bindgen]
pub fn read_records(file: Vec<u8>) -> Result<String, JsError> {
    let records = Records::read(&file[..])?.records;
    let said = records.iter().map(|record| {
        let cases = record.cases.iter().map(|case| {
            json!({
                "median": case.summary().map(|summary| summary.median),
                "of_copy": record.share_of_copy(case),
                "of_product": record.share_of_product(case),
            })
        });
        json!({"record": record, "cases": cases.collect::<Vec<_>>()})
    });
    Ok(json!(said.collect::<Vec<_>>()).to_string())
}

/// How many times as fast the second record is in each case that both have, as JSON: `what`, `of`, and `speed` as lower bound,
/// estimate and upper bound (95 %). Both are JSON of one record.
///
/// # Errors
/// That one is no record.
#[wasm_bindgen]
pub fn compare_records(first: String, second: String) -> Result<String, JsError> {
    let (first, second): (Record, Record) = (
        serde_json::from_str(&first)?,
        serde_json::from_str(&second)?,
    );
    let pairs = compare(&first, &second);
    let said = pairs
        .iter()
        .map(|pair| json!({"what": pair.first.what, "of": pair.first.of, "speed": pair.speed}));
    Ok(json!(said.collect::<Vec<_>>()).to_string())
}

/// Prunes a file of weights: what was done, as JSON.
///
/// `wanted` is JSON (see `wanted.rs`), `read(offset, length)` promises a `Uint8Array` of the file, `write(bytes)` promises to
/// have taken the next bytes, and `progress` gets how many there were. `config` and `norms` are the contents of a config.json
/// and of a norms file, where there are such.
///
/// # Errors
/// What is wrong with the file or the request, or how reading, writing or the device failed.
#[wasm_bindgen]
pub async fn prune(
    device: String,
    wanted: String,
    config: Option<Vec<u8>>,
    norms: Option<Vec<u8>>,
    read: Function,
    write: Function,
    progress: Function,
) -> Result<String, JsError> {
    let wanted: Wanted = serde_json::from_str(&wanted)?;
    let options = wanted.options()?;
    let (config, norms) = wanted.companions(config.as_deref(), norms.as_deref())?;
    let device = Device::open_async(&choice(&device)).await?;
    let (mut source, mut sink) = (JsSource(read), JsSink(write));
    let checkpoint = open_stream(&wanted.name, wanted.bytes, config, &mut source).await?;
    let plan = Plan::new(checkpoint, options, norms)?;
    let start = Instant::now();
    let told = |bytes: u64| tell(&progress, &[(bytes as f64).into()]);
    let streamed = prune_stream(&plan, &device, &mut source, &mut sink, &told).await?;
    let pruned = streamed.counts.iter().flatten();
    let (mut weights, mut zeros, mut tensors) = (0, 0, 0);
    for counts in pruned {
        weights += counts.weights;
        zeros += counts.zeros;
        tensors += 1;
    }
    let summary = json!({
        "score": plan.score().name,
        "warnings": plan.warnings(),
        "device_failure": streamed.device_failure.map(|error| error.to_string()),
        "tensors": plan.tensors().len(),
        "tensors_pruned": tensors,
        "weights": weights,
        "zeros": zeros,
        "bytes": plan.bytes_total(),
        "sha256": streamed.sha256,
        "seconds": start.elapsed().as_secs_f64(),
    });
    Ok(summary.to_string())
}

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use naga::{Block, Expression, Handle, Module, Statement, TypeInner};

use super::super::recorder::Recorder;
use super::case::Case;
use super::cases::cases;
use super::{all_kernels, kernels};
use crate::device::adapter::adapters;
use crate::device::adapter::faults::{Fault, Faults};
use crate::dtype::Dtype;
use crate::shader::Kernel;

/// What the check says of every adapter here, each with a fault.
fn check(fault: Option<Fault>) -> Vec<(String, Result<(), String>)> {
    let check = |adapter: crate::device::adapter::Adapter| {
        let name = adapter.info.to_string();
        let context = adapter.open(Faults::new(fault)).unwrap();
        let recorder = Recorder::new(&context, 0);
        // The second time, everything is compiled.
        let [first, second] = [(); 2].map(|()| {
            let start = Instant::now();
            (kernels(&recorder).unwrap(), start.elapsed())
        });
        println!("{name}: {:?}, compiled {:?}", first.1, second.1);
        (name, first.0)
    };
    adapters(true).into_iter().map(check).collect()
}

#[test]
fn every_adapter_here_runs_the_kernels_right() {
    for (name, result) in check(None) {
        assert_eq!(result, Ok(()), "{name}");
    }
}

#[test]
fn an_adapter_that_ignores_the_barriers_of_a_kernel_does_not_pass() {
    let shaders = all_kernels().map(|kernel| &kernel.shader);
    for shader in shaders.filter(|shader| shader.wgsl.contains("Barrier();")) {
        for (name, result) in check(Some(Fault::WithoutBarriers(shader.name))) {
            assert!(result.is_err(), "{} on {name}", shader.name);
        }
    }
}

/// The fields of the uniform block that an entry point reads, itself or in a function.
fn fields_read(kernel: &Kernel, entry_point: &str) -> BTreeSet<String> {
    let module = naga::front::wgsl::parse_str(kernel.shader.wgsl).unwrap();
    let mut entries = module.entry_points.iter();
    let entry = entries.find(|entry| entry.name == entry_point).unwrap();
    let mut fields = fields_of(&module, &entry.function);
    let mut called = Vec::new();
    calls(&entry.function.body, &mut called);
    let mut seen = BTreeSet::new();
    while let Some(function) = called.pop() {
        if seen.insert(function.index()) {
            let function = &module.functions[function];
            fields.extend(fields_of(&module, function));
            calls(&function.body, &mut called);
        }
    }
    fields
}

/// Those that a function reads itself.
fn fields_of(module: &Module, function: &naga::Function) -> BTreeSet<String> {
    let field = |(_, expression): (_, &Expression)| {
        let Expression::AccessIndex { base, index } = expression else {
            return None;
        };
        let Expression::GlobalVariable(variable) = function.expressions[*base] else {
            return None;
        };
        let variable = &module.global_variables[variable];
        match &module.types[variable.ty].inner {
            TypeInner::Struct { members, .. } => members[*index as usize].name.clone(),
            _ => None,
        }
    };
    function.expressions.iter().filter_map(field).collect()
}

/// The functions that a block calls.
fn calls(block: &Block, all: &mut Vec<Handle<naga::Function>>) {
    for statement in block {
        match statement {
            Statement::Call { function, .. } => all.push(*function),
            Statement::Block(block) => calls(block, all),
            Statement::If { accept, reject, .. } => {
                calls(accept, all);
                calls(reject, all);
            }
            Statement::Switch { cases, .. } => {
                cases.iter().for_each(|case| calls(&case.body, all));
            }
            Statement::Loop {
                body, continuing, ..
            } => {
                calls(body, all);
                calls(continuing, all);
            }
            _ => {}
        }
    }
}

/// The values that a field is to have been tried with: those of the constants called after it in the shader, such as `ALIBI_NONE`
/// for `alibi`, and every dtype.
fn named_values(kernel: &Kernel, entry_point: &str, field: &str) -> BTreeSet<u32> {
    if field == "dtype" {
        return Dtype::ALL.map(|dtype| dtype as u32).into();
    }
    let prefix = format!("const {}_", field.to_uppercase());
    let lines = kernel.shader.wgsl.lines();
    let constants = lines.filter_map(|line| line.strip_prefix(&prefix));
    // It is there with a gate only.
    let constants =
        constants.filter(|line| entry_point == "gated" || !line.starts_with("CLAMPED_SWIGLU"));
    let value = |line: &str| {
        let (_, value) = line.split_once("u32 = ")?;
        value.strip_suffix("u;")?.parse().ok()
    };
    constants.filter_map(value).collect()
}

/// What of a kernel's options no case tries.
fn untried(kernel: &Kernel, cases: &[Case]) -> Vec<String> {
    let mut missing = Vec::new();
    for entry_point in kernel.shader.entry_points {
        let name = entry_point.name;
        let of_entry_point = || cases.iter().filter(|case| case.entry_point == name);
        if of_entry_point().next().is_none() {
            missing.push(name.to_owned());
            continue;
        }
        let fields = fields_read(kernel, name);
        assert!(!fields.is_empty(), "{name}");
        let mut tried: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
        for (params, _) in of_entry_point().flat_map(|case| &case.dispatches) {
            for &(field, at) in kernel.layout {
                let bits = u32::from_ne_bytes(params[at..at + 4].try_into().unwrap());
                tried.entry(field).or_default().insert(bits);
            }
        }
        for field in &fields {
            let values = &tried[field.as_str()];
            let named = named_values(kernel, name, field);
            if values.len() < 2 || !named.is_subset(values) {
                missing.push(format!("{name}: {field}, {values:?} of {named:?}"));
            }
        }
    }
    missing
}

#[test]
fn every_entry_point_is_tried_with_two_values_of_every_field_and_with_all_that_have_a_name() {
    let cases = cases();
    for kernel in all_kernels() {
        let missing = untried(kernel, &cases);
        assert!(missing.is_empty(), "{}: {missing:#?}", kernel.shader.name);
    }
}

#[test]
fn an_entry_point_or_an_option_without_a_case_is_noticed() {
    // One without the other cases: what each of these leaves untried.
    for (without, what) in [
        ("state space", "state_space"),
        ("delta net", "delta_net"),
        ("convolution", "convolution"),
        ("product with a number", "scaled"),
        ("weights in bf16", "product: dtype"),
        ("scaled product", "product: scale"),
        ("in a ring", "attention: capacity"),
        ("tail of", "tail"),
        ("with a soft cap", "attention: soft_cap"),
        ("with sinks", "attention: has_sinks"),
        ("with ALiBi in bf16", "attention: alibi"),
        ("of neighbours", "apply_rope: interleaved"),
        ("LayerNorm of heads", "normalise_heads: centred"),
        ("Mish", "plain: activation"),
    ] {
        let mut some = cases();
        some.retain(|case| !case.what.contains(without));
        let missing: Vec<String> = all_kernels()
            .flat_map(|kernel| untried(kernel, &some))
            .collect();
        let is_it = |missing: &String| missing.starts_with(what);
        assert!(missing.iter().any(is_it), "{without}: {missing:?}");
    }
}

#[test]
fn an_adapter_that_ignores_an_option_does_not_pass() {
    // A field that is the same in every case, whatever it should be.
    for adapter in adapters(true) {
        let name = adapter.info.to_string();
        let context = adapter.open(Faults::default()).unwrap();
        let recorder = Recorder::new(&context, 0);
        for kernel in all_kernels() {
            for entry_point in kernel.shader.entry_points {
                for field in fields_read(kernel, entry_point.name) {
                    let mut wrongs = ignored(kernel, entry_point.name, &field).into_iter();
                    let is_noticed = wrongs.any(|wrong| {
                        let found = super::first_wrong(&recorder, &wrong).unwrap();
                        found.is_some()
                    });
                    assert!(is_noticed, "{name}: {}: {field}", entry_point.name);
                }
            }
        }
    }
}

/// The cases of an entry point, once for each value that a field has in one of them, with that value in all.
fn ignored(kernel: &Kernel, entry_point: &str, field: &str) -> Vec<Vec<Case>> {
    let (_, at) = kernel
        .layout
        .iter()
        .find(|(name, _)| *name == field)
        .unwrap();
    let place = *at..at + 4;
    let of_entry_point = || {
        let mut all = cases();
        all.retain(|case| case.entry_point == entry_point);
        all
    };
    let values: BTreeSet<Vec<u8>> = of_entry_point()
        .iter()
        .flat_map(|case| &case.dispatches)
        .map(|(params, _)| params[place.clone()].to_vec())
        .collect();
    let with = |value: Vec<u8>| {
        let mut all = of_entry_point();
        for (params, _) in all.iter_mut().flat_map(|case| &mut case.dispatches) {
            params[place.clone()].copy_from_slice(&value);
        }
        all
    };
    values.into_iter().map(with).collect()
}

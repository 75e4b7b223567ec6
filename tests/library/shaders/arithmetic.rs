//! What shaders may compute: nothing undefined, numbers of 32 bits and, in the passes, no float operation that could be rounded
//! otherwise.

use naga::valid::ModuleInfo;
use naga::{Expression, Module, TypeInner};
use swiftprune_wgpu::internals::{FUSED, PASSES};

use super::{each_expression, literal, module, parse, shaders};

/// A shift by 32 or more, or an integer division by 0, that is written out; Metal and HLSL leave both undefined.
fn undefined_arithmetic(module: &Module) -> Vec<String> {
    use naga::BinaryOperator::{Divide, Modulo, ShiftLeft, ShiftRight};

    let mut found = Vec::new();
    each_expression(module, |arena, expression| {
        if let Expression::Binary { op, right, .. } = *expression {
            match (op, literal(arena, right)) {
                (ShiftLeft | ShiftRight, Some(by)) if !(0..32).contains(&by) => {
                    found.push(format!("a shift by {by}"));
                }
                (Divide | Modulo, Some(0)) => found.push("a division by 0".to_owned()),
                _ => {}
            }
        }
    });
    found
}

#[test]
fn no_shader_shifts_by_32_or_divides_by_0() {
    for pass in shaders() {
        let (module, _) = module(pass);
        assert_eq!(undefined_arithmetic(&module), [""; 0], "{}", pass.name);
    }
    for (expression, wrong) in [
        ("x << 31u", 0),
        ("x / y", 0),
        ("x >> 32u", 1),
        ("x % 0u", 1),
    ] {
        let wgsl = format!("fn f(x: u32, y: u32) -> u32 {{ return {expression}; }}");
        let module = naga::front::wgsl::parse_str(&wgsl).expect("WGSL");
        assert_eq!(undefined_arithmetic(&module).len(), wrong, "{expression}");
    }
}

/// Float operations of the passes that a compiler may round otherwise than one by one: fused, reassociated, by an
/// approximate division. Metal compiles with fast arithmetic, the others may contract a product and a sum.
fn rearrangeable(module: &Module, info: &ModuleInfo) -> Vec<String> {
    use naga::BinaryOperator::{Add, Divide, Modulo, Multiply, Subtract};

    let mut found = Vec::new();
    let functions = module
        .functions
        .iter()
        .map(|(handle, function)| (function, &info[handle]));
    let entry_points = module.entry_points.iter().enumerate();
    let entry_points =
        entry_points.map(|(index, entry)| (&entry.function, info.get_entry_point(index)));
    for (function, info) in functions.chain(entry_points) {
        let is_float = |handle: naga::Handle<Expression>| {
            let kind = info[handle].ty.inner_with(&module.types).scalar_kind();
            kind == Some(naga::ScalarKind::Float)
        };
        // Scaling by a power of two rounds nothing, so it may go anywhere.
        let is_power_of_two = |handle: naga::Handle<Expression>| match function.expressions[handle]
        {
            Expression::Literal(naga::Literal::F32(x)) => x.to_bits() & 0x007f_ffff == 0,
            Expression::As {
                expr,
                convert: None,
                ..
            } => literal(&function.expressions, expr).is_some_and(|bits| bits & 0x007f_ffff == 0),
            _ => false,
        };
        let rounds = |handle: naga::Handle<Expression>| match function.expressions[handle] {
            Expression::Binary { op, left, right } if is_float(handle) => {
                let is_scaling = is_power_of_two(left) || is_power_of_two(right);
                !(op == Multiply && is_scaling)
            }
            _ => false,
        };
        for (handle, expression) in function.expressions.iter() {
            match *expression {
                _ if !is_float(handle) => {}
                Expression::Binary {
                    op: Divide | Modulo,
                    ..
                } => {
                    found.push("a float division".to_owned());
                }
                Expression::Binary {
                    op: Add | Subtract | Multiply,
                    left,
                    right,
                } if rounds(left) || rounds(right) => {
                    found.push("a float operation on the result of another".to_owned());
                }
                Expression::Math { fun, .. } => found.push(format!("{fun:?} of a float")),
                _ => {}
            }
        }
    }
    found
}

#[test]
fn the_passes_leave_no_float_operation_to_fuse_or_reorder() {
    for pass in PASSES.iter().chain(FUSED) {
        let (module, info) = module(pass);
        assert_eq!(rearrangeable(&module, &info), [""; 0], "{}", pass.name);
    }
    for (expression, wrong) in [
        ("x * y", 0),
        ("x * (y * 0.25)", 0),
        ("x * y + 1.0", 1),
        ("x * (y * 0.3)", 1),
        ("x / y", 1),
        ("sqrt(x)", 1),
    ] {
        let wgsl = format!("fn f(x: f32, y: f32) -> f32 {{ return {expression}; }}");
        let (module, info) = parse(&wgsl).expect("WGSL");
        assert_eq!(rearrangeable(&module, &info).len(), wrong, "{expression}");
    }
}

#[test]
fn every_number_is_of_32_bits_as_not_every_back_end_has_others() {
    for pass in shaders() {
        let (module, _) = module(pass);
        for (_, ty) in module.types.iter() {
            let scalar = match ty.inner {
                TypeInner::Scalar(scalar)
                | TypeInner::Atomic(scalar)
                | TypeInner::Vector { scalar, .. } => scalar,
                TypeInner::Array { .. } | TypeInner::Struct { .. } => continue,
                ref other => panic!("{}: {other:?} is new here", pass.name),
            };
            let is_bool = scalar.kind == naga::ScalarKind::Bool;
            assert!(is_bool || scalar.width == 4, "{}: {scalar:?}", pass.name);
        }
    }
}

// What happens to values one by one, in place: y += scale * x; y = scale * x; y = clamp(y, -bound, bound); y = bound * tanh(y / bound).

struct Elementwise {
    count: u32,
    // Values a row of the dispatch covers.
    row: u32,
    scale: f32,
    bound: f32,
}

@group(0) @binding(0) var<uniform> params: Elementwise;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

// The value of this invocation; params.count where it has none.
fn index_of(id: vec3<u32>) -> u32 {
    let index = id.y * params.row + id.x;
    return select(params.count, min(index, params.count), id.x < params.row);
}

@compute @workgroup_size(256)
fn add_scaled(@builtin(global_invocation_id) id: vec3<u32>) {
    let index = index_of(id);
    if index < params.count {
        y[index] += params.scale * x[index];
    }
}

@compute @workgroup_size(256)
fn scaled(@builtin(global_invocation_id) id: vec3<u32>) {
    let index = index_of(id);
    if index < params.count {
        y[index] = params.scale * x[index];
    }
}

@compute @workgroup_size(256)
fn clip_all(@builtin(global_invocation_id) id: vec3<u32>) {
    let index = index_of(id);
    if index < params.count {
        y[index] = clamp(y[index], -params.bound, params.bound);
    }
}

// Its own hyperbolic tangent, as some back ends' overflows.
@compute @workgroup_size(256)
fn soft_cap(@builtin(global_invocation_id) id: vec3<u32>) {
    let index = index_of(id);
    if index < params.count {
        let z = y[index] / params.bound;
        let e = exp(-2.0 * min(abs(z), 20.0));
        y[index] = params.bound * sign(z) * (1.0 - e) / (1.0 + e);
    }
}

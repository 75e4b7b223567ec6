// Some tokens' rows out of a hidden state, and back into one: what experts are given, and what they give.
//
// gather: y[r] = x[token of r] * w; scatter: y[token of r] += x[r] * w, where no token is named twice. w is the weight of
// the row.

struct Rows {
    features: u32,
}

@group(0) @binding(0) var<uniform> params: Rows;
// The token of each row, and the bits of its weight.
@group(0) @binding(1) var<storage, read> places: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

fn weight(row: u32) -> f32 {
    return bitcast<f32>(places[row].y);
}

@compute @workgroup_size(256)
fn gather(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < params.features {
        y[id.y * params.features + id.x] = x[places[id.y].x * params.features + id.x] * weight(id.y);
    }
}

@compute @workgroup_size(256)
fn scatter(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < params.features {
        let to = places[id.y].x * params.features + id.x;
        y[to] = y[to] + x[id.y * params.features + id.x] * weight(id.y);
    }
}

// Column norms of one window's activations at one site, norms[j] = sum_t x[t, j]^2, or their sums, without the square. A
// workgroup makes 64 columns, 4 invocations a column.

struct SiteNorms {
    // The first of the window's rows.
    row: u32,
    tokens: u32,
    features: u32,
    // Where the site's norms begin.
    first: u32,
    // 1 for norms, 0 for sums.
    squared: u32,
}

@group(0) @binding(0) var<uniform> params: SiteNorms;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> norms: array<f32>;

const COLUMNS: u32 = 64u;
const PARTS: u32 = 4u;

var<workgroup> partial: array<f32, 256>;

@compute @workgroup_size(256)
fn site_norms(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let column = group.x * COLUMNS + lane % COLUMNS;
    var sum = 0.0;
    if column < params.features {
        for (var token = lane / COLUMNS; token < params.tokens; token += PARTS) {
            let value = x[(params.row + token) * params.features + column];
            sum += select(value, value * value, params.squared != 0u);
        }
    }
    partial[lane] = sum;
    workgroupBarrier();
    if lane < COLUMNS && column < params.features {
        norms[params.first + column] = partial[lane] + partial[lane + 64u] + partial[lane + 128u] + partial[lane + 192u];
    }
}

// Causal grouped-query attention: found[t, h] = softmax(scale * q[t, h] . k[s, g]) v[s, g] over the s <= t that the window
// reaches, where g is the group of head h; with a soft cap, cap * tanh(score / cap) stands in for the score, and with ALiBi
// a bias is added to it.
//
// A workgroup takes 16 queries of one head over 16 keys at a time and keeps the softmax's running maximum and sum
// (arXiv 2205.14135), so that no matrix of context by context exists. Invocation (query, lane) holds the features lane,
// lane + 16 ... of what its query has found.

struct Attention {
    // Rows of successive tokens of one window; the first, and where that stands in the window.
    rows: u32,
    row: u32,
    position: u32,
    // The key of the token at a position is in row key_row + position % capacity.
    key_row: u32,
    capacity: u32,
    head_dim: u32,
    // Features of a value, which may be others than those of queries and keys.
    value_dim: u32,
    query_heads: u32,
    // Query heads to a key head.
    group_size: u32,
    // From one token's queries to the next one's, and from its keys and values.
    token_stride: u32,
    key_token_stride: u32,
    query_stride: u32,
    key_stride: u32,
    value_stride: u32,
    // Where the first query, key and value of the first token lie.
    first_query: u32,
    first_key: u32,
    first_value: u32,
    // Tokens that a query looks back, itself included.
    window: u32,
    // Tokens of a chunk, beyond whose first one no query of it sees.
    chunk: u32,
    // The query of token t, counted from 1, is multiplied by 1 + temperature ln(1 + floor(t / temperature_period)).
    temperature: f32,
    temperature_period: u32,
    scale: f32,
    // 0: none.
    soft_cap: f32,
    // 1: each head has a key without a value.
    has_sinks: u32,
    // What is added to the scores (arXiv 2108.12409), by ALIBI_; and what that is multiplied by.
    alibi: u32,
    alibi_factor: f32,
    // The first of the workgroups that are dispatched together.
    first_group_x: u32,
    first_group_y: u32,
}

@group(0) @binding(0) var<uniform> params: Attention;
@group(0) @binding(1) var<storage, read> queries: array<f32>;
@group(0) @binding(2) var<storage, read_write> found: array<f32>;
// Of each query head: the score of the key that every query sees and that has no value, or the slope of its biases.
@group(0) @binding(3) var<storage, read> of_heads: array<f32>;
@group(0) @binding(4) var<storage, read> keys_and_values: array<f32>;

const ALIBI_NONE: u32 = 0u;
const ALIBI_OF_DISTANCE: u32 = 1u;
const ALIBI_IN_BF16: u32 = 2u;

const TILE: u32 = 16u;
// Rows of 17, so that lanes that read one below the other use different banks.
const STRIDE: u32 = 17u;
// 16 slices of 16: the longest head there is room for.
const SLICES: u32 = 16u;
// Less than any score; an infinity would be at the mercy of fast arithmetic.
const NOTHING: f32 = -1e30;

var<workgroup> query_tile: array<f32, 272>;
// Keys, then values.
var<workgroup> key_tile: array<f32, 272>;
var<workgroup> shares: array<f32, 272>;

fn load_query(first: u32, row: u32, feature: u32) -> f32 {
    var value = 0.0;
    if row < params.rows && feature < params.head_dim {
        value = queries[first + (params.row + row) * params.token_stride + feature];
    }
    return value;
}

// A feature of the key or the value of the token at a position.
fn load(first: u32, position: u32, feature: u32, features: u32) -> f32 {
    var value = 0.0;
    if position < params.position + params.rows && feature < features {
        let row = params.key_row + position % params.capacity;
        value = keys_and_values[first + row * params.key_token_stride + feature];
    }
    return value;
}

// x as the nearest bfloat16, ties to even.
fn as_bf16(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    return bitcast<f32>((bits + 0x7fffu + ((bits >> 16u) & 1u)) & 0xffff0000u);
}

// A score with the bias of a head for a key that its query sees.
fn biased(score: f32, head: u32, query: u32, key: u32) -> f32 {
    // Of ALIBI_NONE.
    var sum = score;
    if params.alibi == ALIBI_OF_DISTANCE {
        sum = score - of_heads[head] * f32(query - key) * params.alibi_factor;
    } else if params.alibi == ALIBI_IN_BF16 {
        let slope = as_bf16(of_heads[head]);
        let bias = as_bf16(slope * as_bf16(f32(key))) - as_bf16(slope * as_bf16(f32(query)));
        sum = score + bias * params.alibi_factor;
    }
    return sum;
}

// Its own hyperbolic tangent, as some back ends' overflows.
fn capped(score: f32) -> f32 {
    var capped = score;
    if params.soft_cap != 0.0 {
        let z = score / params.soft_cap;
        let e = exp(-2.0 * min(abs(z), 20.0));
        capped = params.soft_cap * sign(z) * (1.0 - e) / (1.0 + e);
    }
    return capped;
}

@compute @workgroup_size(256)
fn attention(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let group = id.xy + vec2<u32>(params.first_group_x, params.first_group_y);
    let lane = index % TILE;
    let row = index / TILE;
    let first_position = params.position + group.x * TILE;
    let query = first_position + row;
    let key_head = group.y / params.group_size;
    let first_query = params.first_query + group.y * params.query_stride;
    let first_key = params.first_key + key_head * params.key_stride;
    let first_value = params.first_value + key_head * params.value_stride;

    // Slices of a value. The host sees to it that they are no more than SLICES.
    let slices = (params.value_dim + TILE - 1u) / TILE;
    var sums: array<f32, SLICES>;
    var largest = NOTHING;
    var total = 0.0;
    if params.has_sinks == 1u {
        largest = of_heads[group.y];
        total = 1.0;
    }
    // From the first key that the first query sees to the last that the last query sees.
    let behind = min(first_position, params.window - 1u);
    let first = max(first_position - behind, first_position / params.chunk * params.chunk);
    let last = min(first_position + TILE, params.position + params.rows);
    let scale = params.scale * (1.0 + params.temperature * log(1.0 + f32((query + 1u) / params.temperature_period)));
    for (var keys = first / TILE * TILE; keys < last; keys += TILE) {
        var score = 0.0;
        for (var slice = 0u; slice < params.head_dim; slice += TILE) {
            query_tile[row * STRIDE + lane] = load_query(first_query, group.x * TILE + row, slice + lane);
            key_tile[row * STRIDE + lane] = load(first_key, keys + row, slice + lane, params.head_dim);
            workgroupBarrier();
            for (var i = 0u; i < TILE; i += 1u) {
                score += query_tile[row * STRIDE + i] * key_tile[lane * STRIDE + i];
            }
            workgroupBarrier();
        }
        score = capped(score * scale);
        let key = keys + lane;
        let seen = key <= query && query - key < params.window && key / params.chunk == query / params.chunk;
        score = biased(score, group.y, query, key);
        shares[row * STRIDE + lane] = select(NOTHING, score, seen);
        workgroupBarrier();

        var next = largest;
        for (var i = 0u; i < TILE; i += 1u) {
            next = max(next, shares[row * STRIDE + i]);
        }
        let kept = exp(largest - next);
        largest = next;
        total *= kept;
        workgroupBarrier();
        // A query that has seen nothing yet would take every key for the best.
        let own = select(0.0, exp(score - largest), seen);
        shares[row * STRIDE + lane] = own;
        workgroupBarrier();
        for (var i = 0u; i < TILE; i += 1u) {
            total += shares[row * STRIDE + i];
        }
        for (var slice = 0u; slice < slices; slice += 1u) {
            key_tile[row * STRIDE + lane] = load(first_value, keys + row, slice * TILE + lane, params.value_dim);
            workgroupBarrier();
            var sum = sums[slice] * kept;
            for (var i = 0u; i < TILE; i += 1u) {
                sum += shares[row * STRIDE + i] * key_tile[i * STRIDE + lane];
            }
            sums[slice] = sum;
            workgroupBarrier();
        }
    }
    if group.x * TILE + row >= params.rows {
        return;
    }
    let features = params.value_dim;
    for (var slice = 0u; slice < slices; slice += 1u) {
        let feature = slice * TILE + lane;
        if feature < features {
            // found is [tokens, heads * value_dim].
            found[((params.row + group.x * TILE + row) * params.query_heads + group.y) * features + feature] = sums[slice] / total;
        }
    }
}

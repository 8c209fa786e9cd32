/* Attention over the rows of a sequence: a row is a position, and sees what the session keeps of
 * earlier ones.
 *
 * All rows' queries, keys and values are computed, then keys and values are stored, then every
 * query goes over the positions that it sees, block by block (core/dense/attend.h). A layer that
 * keeps nothing needs no session: what a span's rows see are the span's own. The order of every sum
 * follows from the positions alone, so chunks, batches, cached prefixes and threads change no bit.
 *
 * A page holds, for each layer, keys [kv_heads, head_dim, ATTEND_POSITIONS], then values [kv_heads,
 * ATTEND_POSITIONS, head_dim]. */
#include <math.h>
#include <string.h>

#include "core/dense/kernel.h"
#include "core/layers/attention.h"
#include "core/session.h"

_Static_assert((int)ATTEND_POSITIONS == (int)MOED_PAGE_POSITIONS, "a block is a page");

/* Queries of a task: enough to share what it reads, few enough to leave every thread its tasks. */
enum { TASK_QUERIES = 64 };

static size_t heads_per_group(const struct attention *attention)
{
    return attention->heads / attention->kv_heads;
}

/* Neighbouring rows whose queries one task takes. */
static size_t rows_per_task(const struct attention *attention)
{
    size_t group = heads_per_group(attention);
    return group < TASK_QUERIES ? TASK_QUERIES / group : 1;
}

/* Floats of a worker's own: the queries' state, then a block's keys and values, which are also
 * where a row is prepared. */
static size_t state_floats(const struct attention *attention)
{
    size_t queries = rows_per_task(attention) * heads_per_group(attention);
    return (queries * sizeof(struct attending) + sizeof(float) - 1) / sizeof(float);
}

static size_t number_bytes(const struct attention *attention)
{
    return attention->half ? sizeof(uint16_t) : sizeof(float);
}

static size_t block_floats(const struct attention *attention)
{
    return ATTEND_POSITIONS * attention->head_dim;
}

size_t attention_workspace(const struct attention *attention)
{
    return state_floats(attention) + 2 * block_floats(attention);
}

void attention_sequence_plan(struct attention *attention, struct layer *layer)
{
    size_t inner = attention->heads * attention->head_dim, qkv = attention_projected(attention);
    size_t kept = attention->kv_heads * attention->head_dim;
    layer->collective = true;
    /* Scores come on top: their number is the position's. */
    layer->cost.macs = attention->size * (qkv + inner);
    attention->qkv = plan_floats(&layer->plan, qkv);
    attention->context = plan_floats(&layer->plan, inner);
    plan_workspace(&layer->plan,
                   max_size(attention_workspace(attention), attention->head_dim + kept));
    if (attention->kept) {
        layer->memory.per_position = 2 * kept * number_bytes(attention);
        layer->memory.window = attention->window;
    }
}

/* One forward of the layer. */
struct sequences {
    const struct layer *layer;
    const struct attention *attention;
    const struct run *run;
    const struct kernel *kernel;
    float *qkv, *context; /* [rows, projected], [rows, heads, head_dim] */
    size_t rows;
    size_t rows_per_task; /* of step 1 */
};

/* ---- step 1: keys and values are made and kept ---- */

/* What normalising, turning and storing a number takes, in multiply-accumulates. */
enum { PREPARE_MACS = 16 };

/* Scatters one head's key among those of its page. */
static void put_key(const struct attention *attention, const void *key, char *to)
{
    size_t width = attention->head_dim, pitch = ATTEND_POSITIONS;
    for (size_t i = 0; attention->half && i < width; i++)
        ((uint16_t *)(void *)to)[i * pitch] = ((const uint16_t *)key)[i];
    for (size_t i = 0; !attention->half && i < width; i++)
        ((float *)(void *)to)[i * pitch] = ((const float *)key)[i];
}

/* `kept`: [2, kv_heads, head_dim] keys and values; workspace: [kv_heads, head_dim]. */
static void store(const struct sequences *all, const struct moed_span *span, size_t position,
                  const float *kept, float *workspace)
{
    const struct attention *attention = all->attention;
    size_t width = attention->head_dim, count = attention->kv_heads * width;
    size_t bytes = number_bytes(attention), at = position % ATTEND_POSITIONS;
    char *keys = session_page(span->session, all->layer, position / ATTEND_POSITIONS);
    char *values = keys + count * ATTEND_POSITIONS * bytes;
    for (int i = 0; i < 2; i++, kept += count) {
        const char *numbers = (const void *)kept;
        if (attention->half) {
            all->kernel->narrow(kept, count, (void *)workspace);
            numbers = (const void *)workspace;
        }
        for (size_t head = 0; head < attention->kv_heads; head++, numbers += width * bytes) {
            size_t before = head * width * ATTEND_POSITIONS;
            if (i == 0)
                put_key(attention, numbers, keys + (before + at) * bytes);
            else
                memcpy(values + (before + at * width) * bytes, numbers, width * bytes);
        }
    }
}

static void prepare(const struct sequences *all, const struct moed_span *span, size_t position,
                    float *qkv, float *workspace)
{
    const struct attention *attention = all->attention;
    const struct rotary *rotary = &attention->rotary;
    size_t width = attention->head_dim;
    float *sine = workspace + rotary->pairs;
    attention_before_turn(attention, qkv);
    if (rotary->pairs)
        rotary_angles(rotary, position, workspace, sine);
    for (size_t head = 0; head < attention->heads + attention->kv_heads; head++)
        rotary_turn_by(rotary, workspace, sine, qkv + head * width);
    attention_after_turn(attention, qkv);
    if (attention->kept)
        store(all, span, position, qkv + attention->heads * width, workspace + width);
}

/* The worker's memory, whose number a task of a forked team gets anew. */
static float *workspace_of(const struct run *run, unsigned worker)
{
    struct run own = *run;
    own.worker = run->team ? worker : run->worker;
    return run_workspace(&own);
}

static void prepare_task(void *context, size_t index, unsigned worker)
{
    const struct sequences *all = context;
    size_t from = index * all->rows_per_task, end = from + all->rows_per_task, row = 0;
    float *workspace = workspace_of(all->run, worker);
    for (size_t i = 0; i < all->run->span_count && row < end; i++) {
        const struct moed_span *span = &all->run->spans[i];
        for (size_t j = from > row ? from - row : 0; j < span->rows && row + j < end; j++)
            prepare(all, span, span->position + j,
                    all->qkv + (row + j) * attention_projected(all->attention), workspace);
        row += span->rows;
    }
}

static void prepare_all(struct sequences *all)
{
    const struct attention *attention = all->attention;
    struct moed_team *team =
        team_for(all->run->team, all->rows * attention_projected(attention) * PREPARE_MACS);
    size_t tasks = team_size(team);
    all->rows_per_task = (all->rows + tasks - 1) / tasks;
    team_run(team, tasks, prepare_task, all);
}

/* ---- step 2: queries attend ---- */

/* What a task works on: some rows of a span, and one head of keys and values. */
struct task {
    const struct moed_span *span;
    size_t before;     /* rows of the batch before the span */
    size_t from, rows; /* of the span */
    size_t head;
    struct attending *queries; /* [rows, heads per group] */
    float *keys, *values;      /* a block's, [head_dim, ATTEND_POSITIONS] and the reverse */
};

static size_t tasks_of(const struct attention *attention, const struct moed_span *span)
{
    size_t rows = rows_per_task(attention);
    return (span->rows + rows - 1) / rows * attention->kv_heads;
}

/* The task's queries before the first block. A sink is a score without a value. */
static void begin(const struct sequences *all, const struct task *task)
{
    const struct attention *attention = all->attention;
    size_t group = heads_per_group(attention), width = attention->head_dim;
    const float *sinks = attention->sinks.values, *bias = attention->bias.values;
    size_t positions = attention->positions;
    for (size_t i = 0; i < task->rows * group; i++) {
        size_t row = task->before + task->from + i / group, head = task->head * group + i % group;
        struct attending *query = &task->queries[i];
        query->query = all->qkv + row * attention_projected(attention) + head * width;
        query->context = all->context + (row * attention->heads + head) * width;
        query->bias = bias ? bias + (head * positions + task->from + i / group) * positions : NULL;
        query->max = sinks ? sinks[head] : -INFINITY;
        query->sum = sinks ? 1 : 0;
        memset(query->context, 0, width * sizeof *query->context);
    }
}

static void end(const struct sequences *all, const struct task *task)
{
    size_t group = heads_per_group(all->attention), width = all->attention->head_dim;
    for (size_t i = 0; i < task->rows * group; i++)
        for (size_t j = 0; j < width; j++)
            task->queries[i].context[j] /= task->queries[i].sum;
}

/* A block of a session's page. Many queries read it as f32, widened once. */
static struct attended kept_block(const struct sequences *all, const struct task *task, size_t page)
{
    const struct attention *attention = all->attention;
    size_t width = attention->head_dim, count = block_floats(attention);
    const char *keys = session_page(task->span->session, all->layer, page);
    keys += task->head * count * number_bytes(attention);
    const char *values = keys + attention->kv_heads * count * number_bytes(attention);
    struct attended block = {
        .keys = keys, .values = values, .width = width, .pitch = width, .half = attention->half};
    if (!attention->half || task->rows == 1)
        return block;
    all->kernel->widen((const void *)keys, count, task->keys);
    all->kernel->widen((const void *)values, count, task->values);
    block.keys = task->keys;
    block.values = task->values;
    block.half = false;
    return block;
}

/* A block of the span's own rows. */
static struct attended own_block(const struct sequences *all, const struct task *task, size_t page)
{
    const struct attention *attention = all->attention;
    size_t width = attention->head_dim, pitch = attention_projected(attention);
    size_t first = page * ATTEND_POSITIONS;
    size_t rows = task->span->rows - first < ATTEND_POSITIONS ? task->span->rows - first
                                                              : (size_t)ATTEND_POSITIONS;
    const float *key =
        all->qkv + (task->before + first) * pitch + (attention->heads + task->head) * width;
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < width; j++)
            task->keys[j * ATTEND_POSITIONS + i] = key[i * pitch + j];
    return (struct attended){.keys = task->keys,
                             .values = key + attention->kv_heads * width,
                             .width = width,
                             .pitch = pitch};
}

/* The part of a block that the task's row `row` sees. */
static void see(const struct sequences *all, const struct task *task, size_t row, size_t page,
                struct attended *block)
{
    const struct attention *attention = all->attention;
    size_t first = page * ATTEND_POSITIONS, from, end;
    attention_visible(attention, task->span->position + task->from + row,
                      task->span->position + task->span->rows, &from, &end);
    block->first = first;
    block->from = from > first ? from - first : 0;
    block->end = end > first ? end - first : 0;
    block->end = block->end < ATTEND_POSITIONS ? block->end : (size_t)ATTEND_POSITIONS;
}

/* Neighbouring rows that see the same positions of the block attend together. */
static void attend_block(const struct sequences *all, const struct task *task, size_t page)
{
    const struct attention *attention = all->attention;
    size_t group = heads_per_group(attention);
    struct attended block =
        attention->kept ? kept_block(all, task, page) : own_block(all, task, page);
    for (size_t row = 0, next; row < task->rows; row = next) {
        struct attended other = block;
        see(all, task, row, page, &block);
        for (next = row + 1; next < task->rows; next++) {
            see(all, task, next, page, &other);
            if (other.from != block.from || other.end != block.end)
                break;
        }
        if (block.from < block.end)
            all->kernel->attend(&block, task->queries + row * group, (next - row) * group,
                                attention->scale);
    }
}

/* The span and rows of task `index`, and its worker's memory. */
static struct task find_task(const struct sequences *all, size_t index, float *workspace)
{
    const struct attention *attention = all->attention;
    const struct moed_span *span = all->run->spans;
    struct task task = {.queries = (void *)workspace};
    for (; index >= tasks_of(attention, span); span++) {
        index -= tasks_of(attention, span);
        task.before += span->rows;
    }
    size_t most = rows_per_task(attention);
    task.span = span;
    task.head = index % attention->kv_heads;
    task.from = index / attention->kv_heads * most;
    task.rows = span->rows - task.from < most ? span->rows - task.from : most;
    task.keys = workspace + state_floats(attention);
    task.values = task.keys + block_floats(attention);
    return task;
}

static void attend_task(void *context, size_t index, unsigned worker)
{
    const struct sequences *all = context;
    const struct task task = find_task(all, index, workspace_of(all->run, worker));
    size_t from, unused, to, count = task.span->position + task.span->rows;
    size_t position = task.span->position + task.from;
    attention_visible(all->attention, position, count, &from, &unused);
    attention_visible(all->attention, position + task.rows - 1, count, &unused, &to);
    begin(all, &task);
    for (size_t page = from / ATTEND_POSITIONS; page * ATTEND_POSITIONS < to; page++)
        attend_block(all, &task, page);
    end(all, &task);
}

static void attend_all(struct sequences *all)
{
    const struct attention *attention = all->attention;
    size_t tasks = 0, seen = 0;
    for (size_t i = 0; i < all->run->span_count; i++) {
        const struct moed_span *span = &all->run->spans[i];
        tasks += tasks_of(attention, span);
        seen += span->rows * (span->position + span->rows);
    }
    struct moed_team *team =
        team_for(all->run->team, 2 * seen * attention->heads * attention->head_dim);
    team_run(team, tasks, attend_task, all);
}

void attention_sequence_attend(const struct attention *attention, const struct layer *layer,
                               const struct run *run, size_t rows)
{
    struct sequences all = {.layer = layer,
                            .attention = attention,
                            .run = run,
                            .kernel = kernel_get(),
                            .qkv = run_floats(run, attention->qkv, rows),
                            .context = run_floats(run, attention->context, rows),
                            .rows = rows};
    prepare_all(&all);
    attend_all(&all);
}

void attention_attend(const struct attention *attention, const struct run *run, size_t count,
                      float *qkv, float *context)
{
    const struct moed_span span = {.rows = count};
    struct run own = *run;
    own.team = NULL;
    own.spans = &span;
    own.span_count = 1;
    struct sequences all = {.attention = attention,
                            .run = &own,
                            .kernel = kernel_get(),
                            .qkv = qkv,
                            .context = context,
                            .rows = count};
    attend_all(&all);
}

void attention_sequence_forward(const struct layer *layer, const struct run *run, size_t rows,
                                const float *x, float *y)
{
    const struct attention *attention = layer->state;
    projection_share(&attention->in, run->team, rows, x, run_floats(run, attention->qkv, rows));
    attention_sequence_attend(attention, layer, run, rows);
    projection_share(&attention->out, run->team, rows, run_floats(run, attention->context, rows),
                     y);
}

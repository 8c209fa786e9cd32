/* The engine and the stream are made on first use. */
#include "onednn_tools.h"

#include <stdio.h>
#include <stdlib.h>

void onednn_must(dnnl_status_t status)
{
    if (status != dnnl_success) {
        fprintf(stderr, "bench: oneDNN failed with status %d\n", (int)status);
        abort();
    }
}

dnnl_engine_t onednn_engine(void)
{
    static dnnl_engine_t engine;
    if (!engine)
        onednn_must(dnnl_engine_create(&engine, dnnl_cpu, 0));
    return engine;
}

static dnnl_stream_t the_stream(void)
{
    static dnnl_stream_t stream;
    if (!stream)
        onednn_must(dnnl_stream_create(&stream, onednn_engine(), dnnl_stream_default_flags));
    return stream;
}

dnnl_memory_desc_t onednn_tensor(int rank, const size_t dims[], dnnl_data_type_t type,
                                 dnnl_format_tag_t tag)
{
    dnnl_memory_desc_t desc;
    dnnl_dims_t sizes;
    for (int i = 0; i < rank; i++)
        sizes[i] = (dnnl_dim_t)dims[i];
    onednn_must(dnnl_memory_desc_init_by_tag(&desc, rank, sizes, type, tag));
    return desc;
}

dnnl_memory_t onednn_memory(const dnnl_memory_desc_t *desc, const void *data)
{
    dnnl_memory_t memory;
    onednn_must(dnnl_memory_create(&memory, desc, onednn_engine(),
                                   data ? (void *)data : DNNL_MEMORY_ALLOCATE));
    return memory;
}

void onednn_copy(dnnl_memory_t from, dnnl_memory_t to)
{
    const dnnl_memory_desc_t *source, *target;
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t reorder;
    onednn_must(dnnl_memory_get_memory_desc(from, &source));
    onednn_must(dnnl_memory_get_memory_desc(to, &target));
    onednn_must(dnnl_reorder_primitive_desc_create(&desc, source, onednn_engine(), target,
                                                   onednn_engine(), NULL));
    onednn_must(dnnl_primitive_create(&reorder, desc));
    const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
    onednn_execute(reorder, arguments, 2);
    onednn_must(dnnl_primitive_destroy(reorder));
    onednn_must(dnnl_primitive_desc_destroy(desc));
}

void onednn_execute(dnnl_primitive_t primitive, const dnnl_exec_arg_t *arguments, int count)
{
    onednn_must(dnnl_primitive_execute(primitive, the_stream(), count, arguments));
    onednn_must(dnnl_stream_wait(the_stream()));
}

const_dnnl_primitive_attr_t onednn_then_relu(void)
{
    static dnnl_primitive_attr_t attributes;
    dnnl_post_ops_t then;
    if (attributes)
        return attributes;
    onednn_must(dnnl_primitive_attr_create(&attributes));
    onednn_must(dnnl_post_ops_create(&then));
    onednn_must(dnnl_post_ops_append_eltwise(then, 1.0f, dnnl_eltwise_relu, 0.0f, 0.0f));
    onednn_must(dnnl_primitive_attr_set_post_ops(attributes, then));
    onednn_must(dnnl_post_ops_destroy(then));
    return attributes;
}

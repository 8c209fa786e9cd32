/* Shared by the products, convolutions and MoE layers of oneDNN 2: one engine and one stream serve
 * the whole program. */
#ifndef BENCH_ONEDNN_TOOLS_H
#define BENCH_ONEDNN_TOOLS_H

#include <dnnl.h>

/* Aborts with a message on failure, which means a bug or no memory. */
void onednn_must(dnnl_status_t status);

dnnl_engine_t onednn_engine(void);

dnnl_memory_desc_t onednn_tensor(int rank, const size_t dims[], dnnl_data_type_t type,
                                 dnnl_format_tag_t tag);

/* Memory of the format; allocated if `data` is NULL, else the caller's. */
dnnl_memory_t onednn_memory(const dnnl_memory_desc_t *desc, const void *data);

/* Copies numbers from one format to another. */
void onednn_copy(dnnl_memory_t from, dnnl_memory_t to);

void onednn_execute(dnnl_primitive_t primitive, const dnnl_exec_arg_t *arguments, int count);

/* Attributes that apply a relu to the results of an operation, in the same pass; owned by the
 * program. */
const_dnnl_primitive_attr_t onednn_then_relu(void);

#endif

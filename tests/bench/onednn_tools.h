/* What the products, convolutions and MoE layers of oneDNN 2 share. One engine and one stream serve
 * the whole program. */
#ifndef BENCH_ONEDNN_TOOLS_H
#define BENCH_ONEDNN_TOOLS_H

#include <dnnl.h>

/* Aborts with a message: nothing here can fail but for lack of memory or a bug. */
void onednn_must(dnnl_status_t status);

dnnl_engine_t onednn_engine(void);

dnnl_memory_desc_t onednn_tensor(int rank, const size_t dims[], dnnl_data_type_t type,
                                 dnnl_format_tag_t tag);

/* Memory of the format; data NULL: allocated with it, else the caller's. */
dnnl_memory_t onednn_memory(const dnnl_memory_desc_t *desc, const void *data);

/* Copies numbers from one format to another. */
void onednn_copy(dnnl_memory_t from, dnnl_memory_t to);

void onednn_execute(dnnl_primitive_t primitive, const dnnl_exec_arg_t *arguments, int count);

/* What relu(x) after the operation makes of it, in the same pass; owned by the program. */
const_dnnl_primitive_attr_t onednn_then_relu(void);

#endif

/* Depthwise convolutions, whose outputs have one input channel each, as the kernel computes them:
 * as many channels at once as a vector has lanes. Taps are walked in the same order as by channels,
 * and are not fused with the sums either: results have the same bits. */
#include "core/layers/conv.h"
#include "core/memory.h"

/* A band's image and results stay in the second-level cache. */
enum { BAND_FLOATS = 32 << 10 };

/* Lines beyond are long enough to be convolved by channels nearly as well, lanes being busy. */
enum { SHORT_LINE = 16 };

static size_t band_lines(const struct conv *conv, size_t band)
{
    return (band - 1) * conv->stride + conv->kernel_h;
}

static size_t padded_line(const struct conv *conv)
{
    return conv->left + conv->in_w + conv->right;
}

static size_t band_floats(const struct conv *conv, size_t band)
{
    size_t pixels = band_lines(conv, band) * padded_line(conv) + band * conv->out_w;
    return pixels * kernel_get()->lanes;
}

static size_t blocks_of(const struct conv *conv)
{
    size_t lanes = kernel_get()->lanes;
    return (conv->out_channels + lanes - 1) / lanes;
}

bool conv_depthwise_suits(const struct conv *conv)
{
    size_t lanes = blocks_of(conv) * kernel_get()->lanes;
    size_t quarters = conv->stride > 1 ? 1 : 2; /* to be busy */
    if (conv->out_w > SHORT_LINE)
        quarters++;
    return band_floats(conv, 1) <= BAND_FLOATS && 4 * conv->out_channels >= quarters * lanes;
}

size_t conv_depthwise_packed(const struct conv *conv)
{
    return blocks_of(conv) * (1 + conv->k) * kernel_get()->lanes;
}

size_t conv_depthwise_floats(const struct conv *conv)
{
    return band_floats(conv, conv->depthwise.band);
}

int conv_depthwise_plan(struct conv *conv, struct error *err)
{
    struct depthwise *plan = &conv->depthwise;
    conv->padded_elements = 0; /* by the others' means */
    *plan = (struct depthwise){.channels = conv->out_channels,
                               .share = conv->out_channels / conv->groups,
                               .in_h = conv->in_h,
                               .in_w = conv->in_w,
                               .out_h = conv->out_h,
                               .out_w = conv->out_w,
                               .kernel_h = conv->kernel_h,
                               .kernel_w = conv->kernel_w,
                               .stride = conv->stride,
                               .top = conv->top,
                               .line_w = padded_line(conv),
                               .band = 1};
    while (plan->band < conv->out_h && band_floats(conv, plan->band + 1) <= BAND_FLOATS)
        plan->band++;
    size_t pixels = band_lines(conv, plan->band) * conv->in_w;
    uint32_t *places = calloc_checked(pixels, sizeof *places, err);
    plan->places = places;
    for (size_t i = 0; places && i < pixels; i++) {
        size_t place = i / conv->in_w * plan->line_w + conv->left + i % conv->in_w;
        places[i] = (uint32_t)(place * kernel_get()->lanes);
    }
    return places ? 0 : -1;
}

/* Lanes beyond the last channel compute it too. */
int conv_depthwise_pack(struct conv *conv, struct error *err)
{
    size_t lanes = kernel_get()->lanes;
    conv->packed = calloc_checked(conv_depthwise_packed(conv), sizeof *conv->packed, err);
    if (!conv->packed)
        return -1;
    for (size_t i = 0; i < blocks_of(conv) * lanes; i++) {
        size_t channel = i < conv->out_channels ? i : conv->out_channels - 1;
        float *to = conv->packed + i / lanes * (1 + conv->k) * lanes + i % lanes;
        *to = conv->bias.values ? conv->bias.values[channel] : 0;
        for (size_t k = 0; k < conv->k; k++)
            *(to += lanes) = conv->weight.values[channel * conv->k + k];
    }
    conv->depthwise.packed = conv->packed;
    return 0;
}

void conv_by_depthwise(const struct conv *conv, size_t group, size_t rows, const float *x,
                       float *workspace, float *y)
{
    (void)group; /* all of them */
    (void)rows;
    kernel_get()->depthwise(&conv->depthwise, x, workspace, y);
}

/* `moectl export`: routing counts in the formats that other tools read. */
#include "clients/c/moectl/export.h"

#include <math.h>
#include <string.h>

/* ---- CSV ---- */

/* RFC 4180: a quote is doubled. */
static void csv_text(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text; text++)
        fprintf(out, *text == '"' ? "\"\"" : "%c", *text);
    fputc('"', out);
}

/* The shortest of 15 to 17 digits that reads back the same. */
static void csv_number(FILE *out, double number)
{
    char text[40];
    if (isnan(number)) {
        fputc(',', out);
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, number);
        double back;
        if (sscanf(text, "%lf", &back) == 1 && back == number)
            break;
    }
    fprintf(out, ",%s", text);
}

void export_csv(const struct document *document, FILE *out)
{
    fputs("layer,expert,selected,top1,dropped,share,weight,weight_share,probability\n", out);
    for (size_t i = 0; i < document->layer_count; i++) {
        const struct layer *layer = &document->layers[i];
        for (size_t j = 0; j < layer->expert_count; j++) {
            const struct expert *expert = &layer->experts[j];
            csv_text(out, layer->name);
            fprintf(out, ",%llu,%llu,%llu,%llu", (unsigned long long)expert->index,
                    (unsigned long long)expert->selected, (unsigned long long)expert->top1,
                    (unsigned long long)expert->dropped);
            csv_number(out, expert->share);
            csv_number(out, expert->weight);
            csv_number(out, expert->weight_share);
            csv_number(out, expert->probability);
            fputc('\n', out);
        }
    }
}

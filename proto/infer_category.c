/* Categories by number or by word, and values that are missing. */
#include "proto/infer_category.h"

#include <math.h>
#include <stdio.h>

#include "core/error.h"
#include "core/text.h"
#include "proto/words.h"

/* Of the longest word that a message shows. */
enum { SHOWN_BYTES = 48 };

/* Writes "input 'x': element 2 of row 7". */
static void describe_element(const struct infer_reader *reader, size_t index, char text[160])
{
    const struct signature_tensor *tensor = reader->tensor;
    size_t element = reader->request->rows * tensor->elements - reader->elements_left + index;
    snprintf(text, 160, "input '%s': element %zu of row %zu", tensor->name,
             element % tensor->elements, element / tensor->elements);
}

int infer_store_category(const struct infer_reader *reader, size_t index, double number,
                         int32_t *category, struct error *err)
{
    const struct signature_tensor *tensor = reader->tensor;
    char place[160];
    *category = tensor->unknown;
    if (number >= 0 && number < (double)tensor->categories && number == trunc(number))
        *category = (int32_t)number;
    else if (!tensor->has_unknown || number != trunc(number)) {
        describe_element(reader, index, place);
        return error_set(err, ERROR_INVALID,
                         "%s is %.10g, expected a category: an integer from 0 to %zu", place,
                         number, tensor->categories - 1);
    }
    return 0;
}

int infer_store_word(const struct infer_reader *reader, size_t index, const char *word,
                     size_t length, int32_t *category, struct error *err)
{
    const struct signature_tensor *tensor = reader->tensor;
    char place[160], shown[SHOWN_BYTES + 1];
    *category = words_find(tensor->words, word, length);
    if (*category < 0 && tensor->has_unknown)
        *category = tensor->unknown;
    if (*category >= 0)
        return 0;
    describe_element(reader, index, place);
    snprintf(shown, sizeof shown, "%.*s", length < SHOWN_BYTES ? (int)length : SHOWN_BYTES, word);
    text_make_printable(shown);
    return error_set(
        err, ERROR_INVALID,
        "%s is \"%s\", which is none of its %zu word%s; the model's metadata lists them", place,
        shown, tensor->words->count, text_s(tensor->words->count));
}

int infer_store_missing(const struct infer_reader *reader, void *value, struct error *err)
{
    const struct signature_tensor *tensor = reader->tensor;
    char place[160];
    if (!tensor->has_missing) {
        describe_element(reader, 0, place);
        return error_set(err, ERROR_INVALID,
                         "%s is null, which the model has no value for (\"missing\" of its input)",
                         place);
    }
    if (tensor->categories)
        *(int32_t *)value = (int32_t)tensor->missing;
    else
        *(float *)value = (float)tensor->missing;
    return 0;
}

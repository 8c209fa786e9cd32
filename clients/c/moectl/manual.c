/* What moectl says about itself: the overview, the help of a command, the manual page and bash's
 * completion, each a loop over the tables of commands and options. */
#include <string.h>

#include "clients/c/moectl/settings.h"

enum { HELP_COLUMNS = 80 };

static const char EXIT_STATUS[] = "0: done. 1: failed; standard error says why. 2: wrong usage.";

static const struct {
    const char *name, *what;
} ENVIRONMENT[] = {
    {"MOED_URL", "The server, unless --url says otherwise."},
    {"MOED_CA", "The CAs of the server, unless --ca says otherwise."},
    {"MOED_TOKEN", "The token, unless --token says otherwise: what a command line holds, other "
                   "users of the machine can read."},
    {"NO_COLOR", "If set and not empty, nothing is coloured."},
    {"http_proxy, https_proxy, NO_PROXY", "The proxy on the way to the server, as for curl."},
};

/* ---- help ---- */

void print_overview(FILE *out)
{
    fputs("moectl asks a moed server what its experts do, and puts load on it.\n\n", out);
    for (size_t i = 0; i < COMMAND_ROWS; i++)
        fprintf(out, "  moectl %-8s %-25s %s\n", COMMANDS[i].name, COMMANDS[i].operands,
                COMMANDS[i].summary);
    fputs("\n  moectl COMMAND --help      explains a command, with examples\n"
          "  moectl --version\n\n"
          "The server is http://127.0.0.1:8080 unless --url or MOED_URL says otherwise.\n",
          out);
}

/* Paragraphs of a description, an empty line between them. */
static void print_paragraphs(FILE *out, const char *text)
{
    while (*text) {
        size_t length = strcspn(text, "\n");
        char paragraph[1024];
        snprintf(paragraph, sizeof paragraph, "%.*s", (int)length, text);
        print_wrapped(out, 0, HELP_COLUMNS, paragraph);
        text += length + (text[length] == '\n');
        fputc('\n', out);
    }
}

static void print_option(FILE *out, const struct option_row *row)
{
    fprintf(out, "  --%s", row->name);
    if (row->type != OPTION_FLAG)
        fprintf(out, " %s", row->operand);
    if (row->value)
        fprintf(out, "   (default %s)", row->value);
    fputc('\n', out);
    print_wrapped(out, 6, HELP_COLUMNS, row->help);
}

void print_help(FILE *out, const struct command *command)
{
    fprintf(out, "Usage: moectl %s%s%s [OPTION...]\n\n", command->name,
            *command->operands ? " " : "", command->operands);
    print_paragraphs(out, command->description);
    fputs("Options:\n", out);
    for (size_t i = 0; i < OPTION_ROWS; i++)
        if (OPTIONS[i].commands & command->bit)
            print_option(out, &OPTIONS[i]);
    fputs("\nExamples:\n", out);
    for (size_t i = 0; i < MAX_EXAMPLES && command->examples[i].line; i++) {
        fprintf(out, "  %s\n", command->examples[i].line);
        print_wrapped(out, 6, HELP_COLUMNS, command->examples[i].what);
    }
    fprintf(out, "\nExit status: %s\n", EXIT_STATUS);
}

/* ---- the manual page ---- */

/* Text of roff: a backslash, a dash and a dot at the beginning of a line mean something to it. */
static void roff(FILE *out, const char *text)
{
    if (*text == '.' || *text == '\'')
        fputs("\\&", out);
    for (; *text; text++) {
        if (*text == '\\')
            fputs("\\e", out);
        else if (*text == '-')
            fputs("\\-", out);
        else if (*text == '\n')
            fputs("\n.PP\n", out);
        else
            fputc(*text, out);
    }
    fputc('\n', out);
}

static void roff_option(FILE *out, const struct option_row *row)
{
    fputs(".TP\n\\fB\\-\\-", out);
    for (const char *at = row->name; *at; at++)
        fputs(*at == '-' ? "\\-" : (char[]){*at, '\0'}, out);
    fputs("\\fR", out);
    if (row->type != OPTION_FLAG)
        fprintf(out, " \\fI%s\\fR", row->operand);
    fputc('\n', out);
    roff(out, row->help);
    if (row->value)
        fprintf(out, "Default: %s.\n", row->value);
}

static void roff_command(FILE *out, const struct command *command)
{
    fprintf(out, ".SS \"moectl %s %s\"\n", command->name, command->operands);
    roff(out, command->description);
    for (size_t i = 0; i < OPTION_ROWS; i++)
        if (OPTIONS[i].commands & command->bit && OPTIONS[i].commands != FOR_SERVER)
            roff_option(out, &OPTIONS[i]);
    for (size_t i = 0; i < MAX_EXAMPLES && command->examples[i].line; i++) {
        fputs(".PP\nExample:\n.PP\n.in +4\n.nf\n", out);
        roff(out, command->examples[i].line);
        fputs(".fi\n.in\n.PP\n", out);
        roff(out, command->examples[i].what);
    }
}

void print_manual(FILE *out)
{
    fputs(".TH MOECTL 1 \"\" \"moed\" \"User Commands\"\n.SH NAME\n"
          "moectl \\- ask a moed server what its experts do, and put load on it\n.SH SYNOPSIS\n",
          out);
    for (size_t i = 0; i < COMMAND_ROWS; i++)
        fprintf(out, "%s\\fBmoectl %s\\fR %s [\\fIOPTION\\fR...]\n", i ? ".br\n" : "",
                COMMANDS[i].name, COMMANDS[i].operands);
    fputs(".SH COMMANDS\n", out);
    for (size_t i = 0; i < COMMAND_ROWS; i++)
        roff_command(out, &COMMANDS[i]);
    fputs(".SH OPTIONS\nOf every command that asks a server:\n", out);
    for (size_t i = 0; i < OPTION_ROWS; i++)
        if (OPTIONS[i].commands == FOR_SERVER)
            roff_option(out, &OPTIONS[i]);
    fputs(".SH EXIT STATUS\n", out);
    roff(out, EXIT_STATUS);
    fputs(".SH ENVIRONMENT\n", out);
    for (size_t i = 0; i < LENGTH(ENVIRONMENT); i++) {
        fprintf(out, ".TP\n.B %s\n", ENVIRONMENT[i].name);
        roff(out, ENVIRONMENT[i].what);
    }
    fputs(".SH SEE ALSO\n.BR moed (1)\n", out);
}

/* ---- completion ---- */

/* "one|two" as the words "one two". */
static void words_of(FILE *out, const char *choices)
{
    for (; *choices; choices++)
        fputc(*choices == '|' ? ' ' : *choices, out);
}

static void completion_values(FILE *out)
{
    for (size_t i = 0; i < OPTION_ROWS; i++) {
        if (OPTIONS[i].type == OPTION_CHOICE) {
            fprintf(out, "    --%s) words=\"", OPTIONS[i].name);
            words_of(out, OPTIONS[i].operand);
            fputs("\" ;;\n", out);
        } else if (OPTIONS[i].type == OPTION_TEXT && strcmp(OPTIONS[i].operand, "FILE") == 0)
            fprintf(out, "    --%s) COMPREPLY=($(compgen -f -- \"$word\")); return ;;\n",
                    OPTIONS[i].name);
        else if (OPTIONS[i].type != OPTION_FLAG)
            fprintf(out, "    --%s) return ;;\n", OPTIONS[i].name);
    }
}

static void completion_command(FILE *out, const struct command *command)
{
    fprintf(out, "    %s)\n        words=\"--help", command->name);
    for (size_t i = 0; i < OPTION_ROWS; i++)
        if (OPTIONS[i].commands & command->bit)
            fprintf(out, " --%s", OPTIONS[i].name);
    fputs("\"\n", out);
    if (strstr(command->operands, "MODEL"))
        /* compgen -W expands words as the shell does: a server's names may be nothing but names. */
        fputs("        [[ $word == -* ]] || words=$(moectl models --names 2>/dev/null |\n"
              "            LC_ALL=C grep -xE '[A-Za-z0-9_.][A-Za-z0-9_.-]*')\n",
              out);
    else if (strstr(command->operands, "COMMAND"))
        fputs("        [[ $word == -* ]] || words=$commands\n", out);
    else if (*command->operands)
        fputs("        [[ $word == -* ]] || { COMPREPLY=($(compgen -f -- \"$word\")); return; }\n",
              out);
    fputs("        ;;\n", out);
}

void print_completion(FILE *out)
{
    fputs("# Completion of moectl for bash, made by `moectl --completion`.\n"
          "_moectl() {\n"
          "    local word=${COMP_WORDS[COMP_CWORD]} words= commands=\"",
          out);
    for (size_t i = 0; i < COMMAND_ROWS; i++)
        fprintf(out, "%s%s", i ? " " : "", COMMANDS[i].name);
    fputs("\"\n    COMPREPLY=()\n    case ${COMP_WORDS[COMP_CWORD - 1]} in\n", out);
    completion_values(out);
    fputs("    esac\n    [[ $words ]] || case ${COMP_WORDS[1]} in\n", out);
    for (size_t i = 0; i < COMMAND_ROWS; i++)
        completion_command(out, &COMMANDS[i]);
    fputs("    esac\n    [[ $COMP_CWORD -gt 1 ]] || words=\"$commands --help --version\"\n"
          "    COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
          "}\ncomplete -F _moectl moectl\n",
          out);
}

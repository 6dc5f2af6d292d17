// A sentence from the service; what stands between backquotes is shown as code. Always text, never markup.

export function Prose({ text }: { text: string }) {
  return <>{text.split(/`([^`]+)`/).map((part, index) => (index % 2 === 1 ? <code key={index}>{part}</code> : part))}</>;
}
